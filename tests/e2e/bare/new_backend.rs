//! A crate that `outboard new-backend` has written, under a guest.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tests::backend;
use tests::process::{Process, Stream, wait_until};
use tests::{DEADLINE, guest, program, scratch};

use crate::host::provides;

/// How long a build may take beside the other tests.
const BUILD: Duration = Duration::from_secs(900);

/// A new crate of a block backend.
fn new_backend(dir: &Path) -> PathBuf {
    let path = dir.join("new-blk");
    let mut command = Command::new(program::own("outboard"));
    command.args(["new-backend", "new-blk", "--type", "blk", "--path"]);
    Process::start("new-backend", command.arg(&path)).expect_exit(0, DEADLINE);
    path
}

/// `make GOAL` in the crate, which keeps what it builds for the next time.
fn make(path: &Path, goal: &str) -> Command {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new-backend/target");
    let mut make = Command::new("make");
    make.arg(goal).current_dir(path);
    make.env("CARGO_TARGET_DIR", target)
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0")
        .env("OUTBOARD", program::own("outboard"))
        .env("RUST_LOG", "info")
        .env("API", path.join("api"));
    // A make that runs this test has other goals.
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    make
}

#[test]
fn a_new_backend_runs_under_a_guest_and_is_rebuilt_and_restarted_live() {
    if !provides("cargo") {
        return;
    }
    let dir = scratch();
    let path = new_backend(dir.path());
    let image = backend::disk_image(&path, 8);
    assert_eq!(image, path.join("disk.img"));
    let mut run = make(&path, "run");
    run.env("KERNEL", guest::bare("virtio"))
        .env("CMDLINE", "mode=storm queues=1 timeout=3600");
    let mut run = Process::start("run", &mut run);
    run.wait_for("storm: start queues=1", BUILD);
    let device = path.join("src/device.rs");
    let text = std::fs::read_to_string(&device).unwrap();
    std::fs::write(&device, format!("{text}\n// Another one.\n")).unwrap();
    let mut restart = Process::start("restart", &mut make(&path, "restart"));
    restart.expect_exit(0, BUILD);
    let starts = || {
        run.printed(Stream::Err)
            .matches("the backend's process has started")
            .count()
    };
    wait_until("another backend", DEADLINE, || starts() == 2);
    run.send(b"x");
    run.wait_for("storm: ok", DEADLINE);
    run.close_stdin();
    run.expect_exit(0, DEADLINE);
}
