//! The virtio-mmio transport, driven by a guest that checks what it gets.

use std::path::Path;

use tests::backend::{self, Backend};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, guest, scratch};

fn virtio(backend: &Backend, cmdline: &str) -> Vmm {
    Vmm::new(guest::bare("virtio"))
        .cmdline(cmdline)
        .device("blk", &backend.socket)
}

/// What the block guest writes, given this seed: 64-bit word `w` of sector `s`.
pub const SEED: u64 = 5;

fn expected_word(sector: u64, word: u64) -> u64 {
    (64 * sector + word + SEED).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub fn check_image(image: &Path, sectors: u64) {
    let bytes = std::fs::read(image).unwrap();
    for (n, word) in bytes
        .chunks_exact(8)
        .take(sectors as usize * 64)
        .enumerate()
    {
        let n = n as u64;
        let word = u64::from_le_bytes(word.try_into().unwrap());
        assert_eq!(word, expected_word(n / 64, n % 64), "sector {}", n / 64);
    }
}

/// Once the driver has probed, no request may cost an exit to user space: the
/// number of MMIO exits does not depend on the number of requests.
fn mmio_exits(vmm: &Running) -> u64 {
    vmm.exits("MMIO_READ") + vmm.exits("MMIO_WRITE")
}

#[test]
fn block_data_reaches_the_image_and_comes_back() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    for mode in [
        "",
        "poll",
        "indirect",
        "event_idx",
        "indirect event_idx ring=0",
        "packed",
        "packed indirect event_idx",
        "packed poll ring=0",
    ] {
        let vmm = virtio(&disk, &format!("sectors=64 seed={SEED} {mode}")).run(0);
        let console = vmm.console();
        assert!(console.contains("blk: refusals ok"), "{mode}: {console}");
        assert!(
            console.contains("blk: ok sectors=64 written=1"),
            "{mode}: {console}"
        );
        check_image(&image, 64);
    }
}

#[test]
fn requests_cost_no_exit_to_user_space() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let run = |n| virtio(&disk, &format!("mode=bench n={n} depth=1")).run(0);
    let (few, many) = (run(10), run(510));
    assert!(
        many.console().contains("bench: ok reads=510"),
        "{}",
        many.process.transcript()
    );
    assert_eq!(
        mmio_exits(&few),
        mmio_exits(&many),
        "500 requests more, no exit more"
    );
    assert_eq!(many.device_counter("blk0", "read-exits"), 0);
    assert_eq!(many.device_counter("blk0", "notify-exits"), 0);
    // How many requests are found complete before their interrupt is a matter
    // of load.
    assert_ne!(many.device_counter("blk0", "interrupts"), 0);
}

#[test]
fn read_only_image_is_refused_writes() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &["--readonly"]);
    let vmm = virtio(&disk, "sectors=8 readonly").run(0);
    assert!(
        vmm.console().contains("blk: ok sectors=8 written=0"),
        "{}",
        vmm.console()
    );
    assert!(std::fs::read(&image).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn storage_daemon_of_qemu_serves_the_guest() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let vmm = virtio(&disk, &format!("sectors=64 seed={SEED}")).run(0);
    assert!(
        vmm.console().contains("blk: ok sectors=64 written=1"),
        "{}",
        vmm.console()
    );
    check_image(&image, 64);
}

#[test]
fn broken_driver_rules_harm_only_the_device_and_until_reset() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    for kind in ["registers", "rings"] {
        let vmm = Vmm::new(guest::bare("misbehave"))
            .cmdline(&format!("case={kind}"))
            .device("blk", &disk.socket)
            .run(0);
        assert!(
            vmm.console().contains("misbehave: survived"),
            "{}",
            vmm.process.transcript()
        );
        assert!(!vmm.messages().contains("panicked"), "{}", vmm.messages());
    }
}

/// Who writes a backend or a driver hears of a broken ring, and of a sound one nothing.
#[test]
fn a_broken_ring_is_reported_by_its_backend() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let reports = |vmm: Running| {
        vmm.messages()
            .matches("reports an error on queue 0")
            .count()
    };
    for case in ["looping-chain", "bad-heads", "bad-index"] {
        let vmm = Vmm::new(guest::bare("misbehave"))
            .cmdline(&format!("case={case}"))
            .device("blk", &disk.socket)
            .run(0);
        let transcript = vmm.process.transcript();
        assert!(
            vmm.console().contains("misbehave: survived"),
            "{transcript}"
        );
        // No more than a flood may have, of which there is one a machine here.
        let warned = reports(vmm);
        assert!((1..=4).contains(&warned), "{warned} reports: {transcript}");
    }
    let sound = virtio(&disk, &format!("sectors=64 seed={SEED}")).run(0);
    assert_eq!(reports(sound), 0);
}

#[test]
fn backend_that_dies_and_is_not_waited_for_breaks_its_device_and_nothing_else() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let other_dir = scratch();
    let other_image = backend::disk_image(other_dir.path(), 4);
    let other = backend::outboard_blk(other_dir.path(), &other_image, &[]);
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=spin-forever")
        .arg(
            "--device",
            format!("blk,socket={},reconnect=off", disk.socket.display()),
        )
        .device("blk", &other.socket)
        .start();
    vmm.process.wait_for("spin-forever", DEADLINE);
    disk.process.signal(libc::SIGKILL);
    vmm.process.wait_for("device needs a reset", DEADLINE);
    vmm.report_status();
    let messages = vmm.messages();
    let broken = messages
        .lines()
        .rfind(|line| line.starts_with("device blk0"))
        .unwrap();
    let whole = messages
        .lines()
        .rfind(|line| line.starts_with("device blk1"))
        .unwrap();
    assert!(broken.contains("NEEDS_RESET"), "{messages}");
    assert!(!whole.contains("NEEDS_RESET"), "{messages}");
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}

#[test]
fn backend_that_dies_is_waited_for_and_taken_up_again() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let mut vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=spin-forever")
        .device("blk", &disk.socket)
        .start();
    vmm.process.wait_for("spin-forever", DEADLINE);
    disk.process.signal(libc::SIGKILL);
    vmm.process.wait_for("the backend is gone", DEADLINE);
    drop(disk);
    let _disk = backend::outboard_blk(dir.path(), &image, &[]);
    vmm.process.wait_for("the backend is back", DEADLINE);
    vmm.report_status();
    let messages = vmm.messages();
    assert!(!messages.contains("NEEDS_RESET"), "{messages}");
    vmm.process.signal(libc::SIGTERM);
    vmm.process.expect_exit(0, DEADLINE);
}
