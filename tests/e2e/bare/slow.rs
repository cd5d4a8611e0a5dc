//! Backends that hang while the machine is reset: nobody else waits for them.

use std::time::{Duration, Instant};

use tests::backend::{self, Backend};
use tests::vmm::Running;
use tests::{DEADLINE, guest, scratch};

use crate::control::{ctl, socket, status};

/// What nobody waits for takes less, on a busy machine too.
const SOON: Duration = Duration::from_secs(8);

/// A guest that works on a disk and a source of entropy and reboots, and both have just
/// stopped to answer. Each is waited for so many seconds.
fn hung(dir: &std::path::Path, seconds: u64) -> (Running, [Backend; 2]) {
    // The guest's reboot may have reset one of them before it is stopped.
    let both_wait = |_: &(Running, [Backend; 2])| {
        let status = status(dir);
        (0..2).all(|device| status["devices"][device]["busy"] == true)
    };
    std::iter::repeat_with(|| stopped_at_a_reboot(dir, seconds))
        .take(10)
        .find(both_wait)
        .expect("both were reset before they were stopped, ten times")
}

fn stopped_at_a_reboot(dir: &std::path::Path, seconds: u64) -> (Running, [Backend; 2]) {
    let image = backend::disk_image(dir, 8);
    let backends = [
        backend::outboard_blk(dir, &image, &[]),
        backend::outboard_rng(dir, "/dev/urandom".as_ref()),
    ];
    let spec = |device_type: &str, backend: &Backend| {
        let socket = backend.socket.display();
        format!("{device_type},socket={socket},deadline={seconds}")
    };
    let vmm = tests::vmm::Vmm::new(guest::bare("virtio"))
        .cmdline("mode=reboot timeout=3600")
        .arg("--device", spec("blk", &backends[0]))
        .arg("--device", spec("rng", &backends[1]))
        .arg("--api", socket(dir))
        .start();
    vmm.process.wait_for("reboot: in_flight=", DEADLINE);
    for backend in &backends {
        backend.process.signal(libc::SIGSTOP);
    }
    ctl(dir, &["reset"], 0);
    vmm.process.wait_for("the guest reboots", DEADLINE);
    (vmm, backends)
}

#[test]
fn devices_are_reset_side_by_side_while_all_else_is_served() {
    const SECONDS: u64 = 20;
    let dir = scratch();
    let (vmm, backends) = hung(dir.path(), SECONDS);
    let begun = Instant::now();
    let busy = status(dir.path());
    vmm.process.signal(libc::SIGUSR1);
    vmm.process.wait_for("device blk0 busy", DEADLINE);
    vmm.process.wait_for("device rng0 busy", DEADLINE);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(busy["state"], "changing", "{busy}");
    for (device, id) in ["blk0", "rng0"].iter().enumerate() {
        assert_eq!(busy["devices"][device]["id"], *id, "{busy}");
        assert_eq!(busy["devices"][device]["busy"], true, "{busy}");
    }
    let lost = |id: &str| {
        let text = format!("device {id}: vhost-user backend");
        vmm.process.wait_for(&text, 2 * DEADLINE).at
    };
    let (disk, rng) = (lost("blk0"), lost("rng0"));
    let apart = disk.max(rng) - disk.min(rng);
    assert!(apart < Duration::from_secs(SECONDS) / 2, "{apart:?}");
    let lines = vmm.process.lines().len();
    for backend in &backends {
        backend.process.signal(libc::SIGCONT);
    }
    // Both are back, and the guest works on them again.
    let (next, _) = vmm
        .process
        .wait_for_after(lines, "reboot: in_flight=", DEADLINE);
    vmm.process
        .wait_for_after(next, "reboot: in_flight=", DEADLINE);
}

#[test]
fn a_machine_ends_at_once_in_the_middle_of_a_reset_that_waits() {
    let dir = scratch();
    let (mut vmm, backends) = hung(dir.path(), 300);
    let begun = Instant::now();
    ctl(dir.path(), &["shutdown"], 0);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for backend in &backends {
        backend.process.signal(libc::SIGCONT);
    }
}
