//! The machine as a whole through the control API: paused, reset, ended.

use tests::process::Stream;
use tests::vmm::Running;
use tests::{DEADLINE, backend, gdb, guest, scratch};

use crate::control::{ctl, socket, status};
use crate::killstorm;

/// Interrupts that the guest's disk has raised.
fn interrupts(dir: &std::path::Path) -> u64 {
    let counters = &status(dir)["devices"][0]["counters"];
    counters["interrupts"].as_u64().unwrap()
}

/// A guest that works on its disk, with a gdb socket. It wants every interrupt: with
/// event_idx it would want none as long as a request is done when it looks, which on a
/// host with one CPU is always.
fn working(dir: &std::path::Path, disk: &backend::Backend) -> Running {
    let spec = format!("blk,socket={}", disk.socket.display());
    let vmm = killstorm::storming(&spec, "");
    killstorm::start(vmm.arg("--api", socket(dir)).gdb(dir))
}

#[test]
fn a_paused_guest_stands_still_and_goes_on_unharmed() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let vmm = working(dir.path(), &disk);
    assert_eq!(status(dir.path())["state"], "running");
    for _ in 0..10 {
        ctl(dir.path(), &["pause"], 0);
        assert_eq!(status(dir.path())["state"], "paused");
        let before = interrupts(dir.path());
        // Twice is once.
        ctl(dir.path(), &["pause"], 0);
        assert_eq!(interrupts(dir.path()), before);
        ctl(dir.path(), &["resume"], 0);
        assert_eq!(status(dir.path())["state"], "running");
        tests::process::wait_until("the guest runs", DEADLINE, || {
            interrupts(dir.path()) > before
        });
    }
    killstorm::finish(vmm);
}

#[test]
fn gdb_attaches_to_a_paused_guest_and_then_decides_alone() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let vmm = working(dir.path(), &disk);
    ctl(dir.path(), &["pause"], 0);
    let ask = |command: &str| {
        let outboard = tests::program::own("outboard");
        let api = socket(dir.path());
        let (outboard, api) = (outboard.display(), api.display());
        format!("shell {outboard} ctl --api {api} {command} 2>&1 | cat")
    };
    let (state, resume) = (ask("status"), ask("resume"));
    let session = gdb::run(
        vmm.gdb_socket(),
        &guest::bare("virtio"),
        &["info threads", &state, &resume, "detach"],
    );
    assert!(session.contains("Thread 1.1"), "{session}");
    assert!(session.contains("stopped in the debugger"), "{session}");
    assert!(session.contains("a debugger is attached"), "{session}");
    assert_eq!(status(dir.path())["state"], "running");
    killstorm::finish(vmm);
}

/// The backend finishes what it has, touches no ring while gdb has the guest, and goes
/// on with it; not only one that keeps a record of its requests.
#[test]
fn devices_stand_still_with_the_guest_if_gdb_wants_it() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let other = scratch();
    let image = backend::disk_image(other.path(), 8);
    let foreign = backend::qemu_storage_daemon(other.path(), &image);
    for (dir, disk) in [(dir.path(), &disk), (other.path(), &foreign)] {
        let vmm = working(dir, disk);
        let mut gdb = gdb::start_merged(
            vmm.gdb_socket(),
            &guest::bare("virtio"),
            &[
                "monitor pause-devices on",
                "monitor vq blk0",
                // Longer than a request takes.
                "shell sleep 0.2",
                "monitor vq blk0",
                "stepi",
                "stepi",
                "monitor pause-devices",
                "monitor pause-devices off",
                "monitor pause-devices on",
                "detach",
            ],
        );
        gdb.expect_exit(0, DEADLINE);
        let session = gdb.printed(Stream::Out);
        let used: Vec<_> = session
            .lines()
            .filter(|line| line.starts_with("used: "))
            .collect();
        assert_eq!(used.len(), 2, "{session}");
        assert_eq!(used[0], used[1], "{session}");
        let still = "devices stand still while the guest is stopped";
        assert_eq!(session.matches(still).count(), 3, "{session}");
        killstorm::finish(vmm);
    }
    // At each queue: the first pause, two steps, off and on, and the end.
    let log = disk.process.transcript();
    assert_eq!(log.matches("DEBUG ring stopped").count(), 4 * 5, "{log}");
}

#[test]
fn a_reset_boots_again_and_a_shutdown_is_the_end() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let mut vmm = working(dir.path(), &disk);
    let (line, _) = vmm.process.wait_for_after(0, "storm: start", DEADLINE);
    ctl(dir.path(), &["reset"], 0);
    vmm.process.wait_for_after(line, "storm: start", DEADLINE);
    ctl(dir.path(), &["shutdown"], 0);
    vmm.process.expect_exit(0, DEADLINE);
}
