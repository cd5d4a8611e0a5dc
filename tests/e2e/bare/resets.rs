//! Devices that are reset, and machines that reboot, in the middle of their work:
//! what was in flight leaves no trace, and the next driver finds a good device.

use std::os::unix::net::UnixStream;
use std::path::Path;

use tests::backend::{self, Backend};
use tests::process::Process;
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, network, program, repetitions, scratch};

use crate::control::{ctl, socket};
use crate::holdings::Holdings;
use crate::host::provides;
use crate::peers::dpdk::net_vhost;

const MIB: u64 = 8;

/// `make soak` asks for more.
fn resets() -> u64 {
    repetitions("OUTBOARD_RESETS", 100)
}

/// One backend of each type, with whoever is at its other end.
struct Backends {
    disk: Backend,
    net: Backend,
    rng: Backend,
    console: Backend,
}

impl Backends {
    fn start(dir: &Path) -> Self {
        let image = backend::disk_image(dir, MIB);
        let peer = network::echo_peer(dir);
        let (console, terminal) = backend::outboard_console(dir);
        network::echo(UnixStream::connect(terminal).unwrap());
        Self {
            disk: backend::outboard_blk(dir, &image, &[]),
            net: backend::outboard_net(dir, &["--peer-connect", peer.to_str().unwrap()]),
            rng: backend::outboard_rng(dir, Path::new("/dev/urandom")),
            console,
        }
    }

    /// All processes of a machine.
    fn processes<'a>(&'a self, vmm: &'a Running) -> [(&'static str, &'a Process); 5] {
        [
            ("outboard", &vmm.process),
            ("blk", &self.disk.process),
            ("net", &self.net.process),
            ("rng", &self.rng.process),
            ("console", &self.console.process),
        ]
    }

    fn machine(&self, cmdline: &str) -> Vmm {
        Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("timeout=3600 {cmdline}"))
            .device("blk", &self.disk.socket)
            .device("net", &self.net.socket)
            .device("rng", &self.rng.socket)
            .device("console", &self.console.socket)
    }
}

/// Runs to the end, for which many resets take longer.
fn run(vmm: Vmm) -> Running {
    let mut running = vmm.start();
    running.process.close_stdin();
    let patience = DEADLINE + DEADLINE * (resets() / 100) as u32;
    running.process.expect_exit(0, patience);
    running
}

/// The sum of what stands behind `in_flight=`.
fn in_flight(vmm: &Running) -> u64 {
    let console = vmm.console();
    let counts = console.split_whitespace();
    let counts = counts.filter_map(|word| word.strip_prefix("in_flight=")?.parse::<u64>().ok());
    counts.sum()
}

#[test]
fn every_device_is_reset_a_hundred_times_in_the_middle_of_its_work() {
    let dir = scratch();
    let backends = Backends::start(dir.path());
    for options in ["", "event_idx indirect"] {
        let cmdline = format!("mode=reset resets={} {options}", resets());
        let vmm = run(backends.machine(&cmdline));
        let console = vmm.console();
        assert_eq!(console.matches("reset: ok").count(), 4, "{console}");
        println!("{options:?}: {} requests were in flight", in_flight(&vmm));
        assert!(in_flight(&vmm) > 4 * resets(), "{console}");
    }
}

/// Other people's backends, as far as they survive a reset: the used ring of
/// vhost-device-rng 0.1.0 continues after one where it was, because of vhost-user-backend
/// 0.10.0.
struct Strangers {
    net: Backend,
    /// It does not always survive a ring that stops with requests in flight (QEMU
    /// 10 dies of it about once in a thousand times); then it is started again.
    storage_daemon: String,
}

impl Strangers {
    fn start(dir: &Path) -> Self {
        let image = backend::disk_image(dir, MIB);
        let storage_daemon = format!(
            "{} --blockdev driver=file,node-name=f,filename={} \
             --export type=vhost-user-blk,id=e,node-name=f,writable=on,addr.type=fd,addr.str={{listen-fd}}",
            program::system("qemu-storage-daemon").display(),
            image.display()
        );
        Self {
            net: net_vhost(dir),
            storage_daemon,
        }
    }

    fn machine(&self, cmdline: &str) -> Vmm {
        Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("timeout=3600 {cmdline}"))
            .arg("--device", format!("blk,exec=\"{}\"", self.storage_daemon))
            .device("net", &self.net.socket)
    }
}

#[test]
fn devices_of_other_people_s_backends_are_reset_a_hundred_times_in_the_middle_of_their_work() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let backends = Strangers::start(dir.path());
    let cmdline = format!("mode=reset resets={}", resets());
    let vmm = run(backends.machine(&cmdline));
    let console = vmm.console();
    assert_eq!(console.matches("reset: ok").count(), 2, "{console}");
    println!("{} requests were in flight", in_flight(&vmm));
}

#[test]
fn a_guest_reboots_a_hundred_times_with_requests_in_flight() {
    let dir = scratch();
    let backends = Backends::start(dir.path());
    reboot(backends.machine("mode=reboot event_idx indirect"));
}

#[test]
fn a_guest_of_other_people_s_backends_reboots_a_hundred_times_with_requests_in_flight() {
    if !provides("dpdk-testpmd") {
        return;
    }
    let dir = scratch();
    let backends = Strangers::start(dir.path());
    reboot(backends.machine("mode=reboot event_idx"));
}

fn reboot(vmm: Vmm) {
    let mut vmm = vmm.start();
    let mut line = 0;
    for _ in 0..resets() {
        let text = "reboot: in_flight=";
        line = vmm.process.wait_for_after(line, text, DEADLINE).0;
    }
    vmm.process.send(b"x");
    vmm.process.wait_for("reboot: ok", DEADLINE);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    println!("{} requests were in flight", in_flight(&vmm));
    assert!(in_flight(&vmm) > resets());
}

/// Until caches and pools are as large as they get.
const WARM_UP: u64 = 20;
/// What an allocator may keep more of at one time than at another.
const SLACK_KIB: u64 = 512;

/// Resets from outside, each when the guest holds with all devices in the middle of their work:
/// then a process has what it had before.
#[test]
fn a_hundred_resets_leave_no_descriptor_and_no_memory_behind() {
    let dir = scratch();
    let backends = Backends::start(dir.path());
    let vmm = backends.machine("mode=hold event_idx indirect");
    let mut vmm = vmm.arg("--api", socket(dir.path())).start();
    let held = "hold: in_flight=";
    let mut line = vmm.process.wait_for_after(0, held, DEADLINE).0;
    let mut reset = |times: u64| {
        for _ in 0..times {
            ctl(dir.path(), &["reset"], 0);
            line = vmm.process.wait_for_after(line, held, DEADLINE).0;
        }
    };
    reset(WARM_UP);
    let processes = backends.processes(&vmm);
    let before = processes.map(|(_, process)| Holdings::of(process));
    reset(resets());
    println!("balance of {} resets:", resets());
    for ((name, process), before) in processes.into_iter().zip(before) {
        let now = Holdings::of(process);
        let descriptors = now.descriptors as i64 - before.descriptors as i64;
        let memory = now.anonymous_kib as i64 - before.anonymous_kib as i64;
        println!("  {name}: {descriptors} descriptors, {memory} KiB of memory");
        assert_eq!(descriptors, 0, "{name}: {} before", before.descriptors);
        assert!(
            memory < SLACK_KIB as i64,
            "{name} has grown by {memory} KiB"
        );
    }
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}
