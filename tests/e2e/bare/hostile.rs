//! A guest that does to its machine what no driver should, at random and on several vCPUs:
//! nothing ends but the guest's own devices, and nothing grows.

use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use tests::backend::{self, Backend};
use tests::process::Process;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, network, repetitions, scratch};

use crate::holdings::Holdings;

/// What one guest does.
const OPERATIONS: u64 = 200_000;
/// In which it is done on a host that emulates much, and has other things to do.
const PATIENCE: Duration = Duration::from_secs(400);

/// Guests, one after the other; `make soak` asks for more, and for other seeds.
fn seeds() -> Range<u64> {
    let first = repetitions("OUTBOARD_FUZZ_SEED", 1);
    first..first + repetitions("OUTBOARD_FUZZ_GUESTS", 1)
}

/// What a process may not grow by in one guest's time.
const GROWTH_KIB: u64 = 8 << 10;
/// Descriptors that a process may have for a moment.
const PASSING_DESCRIPTORS: u64 = 4;
/// Warnings that a process may log: each kind of fault is limited to a few a second.
const WARNINGS_A_SECOND: u64 = 50;

/// Prints what a process has now, and fails where that is more than time can have brought.
fn balance(name: &str, process: &Process, before: Holdings, took: Duration) {
    let now = Holdings::of(process);
    let grown = now.resident_kib.saturating_sub(before.resident_kib);
    let warnings = now.warnings - before.warnings;
    println!(
        "  {name}: {} KiB resident (+{grown}), {} descriptors ({} before), {warnings} warnings",
        now.resident_kib, now.descriptors, before.descriptors
    );
    assert!(grown < GROWTH_KIB, "{name} has grown by {grown} KiB");
    assert!(
        now.descriptors <= before.descriptors + PASSING_DESCRIPTORS,
        "{name} has more descriptors"
    );
    assert!(
        warnings < WARNINGS_A_SECOND * (took.as_secs() + 2),
        "{name} has logged {warnings} warnings in {took:?}"
    );
    let transcript = process.transcript();
    assert!(!transcript.contains("panicked"), "{transcript}");
}

/// A backend of each type for the guest to misuse, and a disk that it uses as it should.
struct Backends {
    spare: Backend,
    misused: [(&'static str, Backend); 4],
}

impl Backends {
    fn start(dir: &Path) -> Self {
        let aside = dir.join("spare");
        std::fs::create_dir(&aside).unwrap();
        let image = backend::disk_image(&aside, 1);
        let words = (0..64 * 64u64).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let pattern: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        std::fs::write(&image, pattern).unwrap();
        let peer = network::echo_peer(dir);
        let (console, terminal) = backend::outboard_console(dir);
        network::echo(UnixStream::connect(terminal).unwrap());
        let disk = backend::disk_image(dir, 4);
        Self {
            spare: backend::outboard_blk(&aside, &image, &[]),
            misused: [
                ("blk", backend::outboard_blk(dir, &disk, &["--queues", "4"])),
                (
                    "net",
                    backend::outboard_net(dir, &["--peer-connect", peer.to_str().unwrap()]),
                ),
                ("rng", backend::outboard_rng(dir, Path::new("/dev/urandom"))),
                ("console", console),
            ],
        }
    }

    fn machine(&self, cmdline: &str) -> Running {
        let vmm = Vmm::new(guest::bare("fuzz"))
            .cpus(2)
            .cmdline(cmdline)
            .device("blk", &self.spare.socket);
        let misused = self.misused.iter();
        let vmm = misused.fold(vmm, |vmm, (name, backend)| {
            vmm.device(name, &backend.socket)
        });
        let vmm = vmm.start();
        vmm.process
            .wait_for("fuzz: ready devices=4 cpus=2", DEADLINE);
        vmm
    }

    /// All processes of a machine.
    fn processes<'a>(&'a self, vmm: &'a Running) -> [(&'static str, &'a Process); 6] {
        let misused = self.misused.each_ref();
        let [blk, net, rng, console] = misused.map(|(name, backend)| (*name, &backend.process));
        let spare = ("spare", &self.spare.process);
        [blk, net, rng, console, spare, ("outboard", &vmm.process)]
    }
}

/// Lets a guest do its worst, and strikes the balance.
fn misuse(backends: &Backends, seed: u64) {
    let timeout = PATIENCE.as_secs();
    let mut vmm = backends.machine(&format!("n={OPERATIONS} seed={seed} timeout={timeout}"));
    let before = backends
        .processes(&vmm)
        .map(|(_, process)| Holdings::of(process));
    vmm.process.send(b"x");
    let begun = Instant::now();
    vmm.process.wait_for("fuzz: done", PATIENCE);
    let took = begun.elapsed();
    println!("{OPERATIONS} operations of seed {seed} in {took:.1?}");
    for ((name, process), before) in backends.processes(&vmm).into_iter().zip(before) {
        balance(name, process, before, took);
    }
    vmm.process.send(b"x");
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn a_hostile_guest_harms_nothing_but_its_own_devices() {
    let dir = scratch();
    let backends = Backends::start(dir.path());
    for seed in seeds() {
        misuse(&backends, seed);
    }
    // The disk that was misused serves the next guest.
    let (_, disk) = &backends.misused[0];
    let next = Vmm::new(guest::bare("virtio")).cmdline("sectors=8");
    let next = next.device("blk", &disk.socket).run(0);
    let console = next.console();
    assert!(console.contains("blk: ok sectors=8 written=1"), "{console}");
}
