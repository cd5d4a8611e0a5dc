//! Backends that hang while the machine is reset: nobody else waits for them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use tests::backend::{self, Backend};
use tests::vmm::Running;
use tests::{DEADLINE, guest, scratch};

use crate::control::{ctl, socket, status};

/// What nobody waits for takes less, on a busy machine too.
const SOON: Duration = Duration::from_secs(8);

/// The guest's line when both devices are in the middle of their work.
const HELD: &str = "hold: in_flight=";

/// A machine that is reset while a disk and a source of entropy have requests, and both
/// have just stopped to answer. Each is waited for so many seconds.
fn hung(dir: &Path, seconds: u64) -> (Running, [Backend; 2]) {
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
        .cmdline("mode=hold timeout=3600")
        .arg("--device", spec("blk", &backends[0]))
        .arg("--device", spec("rng", &backends[1]))
        .arg("--api", socket(dir))
        .start();
    vmm.process.wait_for(HELD, DEADLINE);
    for backend in &backends {
        backend.process.stop();
    }
    ctl(dir, &["reset"], 0);
    vmm.process.wait_for("the guest reboots", DEADLINE);
    (vmm, backends)
}

/// The machine's state once both devices are waited for: the vCPUs are stopped first.
fn status_of_both_busy(dir: &Path) -> Value {
    let both_wait = |status: &Value| {
        let mut devices = status["devices"].as_array().into_iter().flatten();
        devices.all(|device| device["busy"] == true)
    };
    let end = Instant::now() + DEADLINE;
    std::iter::repeat_with(|| status(dir))
        .take_while(|_| Instant::now() < end)
        .find(both_wait)
        .expect("both devices are waited for")
}

#[test]
fn devices_are_reset_side_by_side_while_all_else_is_served() {
    const SECONDS: u64 = 20;
    let dir = scratch();
    let (vmm, backends) = hung(dir.path(), SECONDS);
    let busy = status_of_both_busy(dir.path());
    let begun = Instant::now();
    vmm.process.signal(libc::SIGUSR1);
    vmm.process.wait_for("device blk0 busy", DEADLINE);
    vmm.process.wait_for("device rng0 busy", DEADLINE);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert_eq!(busy["state"], "changing", "{busy}");
    for (device, id) in ["blk0", "rng0"].iter().enumerate() {
        assert_eq!(busy["devices"][device]["id"], *id, "{busy}");
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
    vmm.process.wait_for_after(lines, HELD, DEADLINE);
}

#[test]
fn a_machine_ends_at_once_in_the_middle_of_a_reset_that_waits() {
    let dir = scratch();
    let (mut vmm, backends) = hung(dir.path(), 300);
    status_of_both_busy(dir.path());
    let begun = Instant::now();
    ctl(dir.path(), &["shutdown"], 0);
    vmm.process.close_stdin();
    vmm.process.expect_exit(0, DEADLINE);
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    for backend in &backends {
        backend.process.signal(libc::SIGCONT);
    }
}
