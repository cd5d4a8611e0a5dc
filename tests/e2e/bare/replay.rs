//! `outboard record` under a guest, and `outboard replay` without one.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tests::backend::{self, Backend};
use tests::recording::{Recorder, expect_equal, expect_replay};
use tests::vmm::Vmm;
use tests::{DEADLINE, guest, network, program, scratch};

use crate::killstorm;
use crate::supervise::outboard_blk;
use crate::virtio::{SEED, check_image};

/// Runs a guest on a device that is recorded, and returns the file.
fn record(device_type: &str, backend: &Backend, dir: &Path, cmdline: &str) -> PathBuf {
    let recorder = Recorder::start(dir, device_type, backend);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("timeout=3600 {cmdline}"))
        .device(device_type, &recorder.proxy.socket)
        .run(0);
    drop(vmm);
    let file = recorder.finish();
    assert_private(&file);
    file
}

/// Nobody but its owner may read what a guest's data is in.
pub fn assert_private(file: &Path) {
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", file.display());
}

#[test]
fn a_guest_s_requests_are_asked_again_of_a_copy_of_its_disk() {
    for mode in [
        "",
        "poll",
        "indirect event_idx",
        "packed",
        "packed indirect event_idx",
        "packed poll ring=0",
    ] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 4);
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        let cmdline = format!("sectors=64 seed={SEED} {mode}");
        let file = record("blk", &disk, dir.path(), &cmdline);
        check_image(&image, 64);
        let copy = scratch();
        let copy = backend::disk_image(copy.path(), 4);
        expect_equal(&file, &["--exec", &outboard_blk(&copy, "")]);
        check_image(&copy, 64);
    }
}

/// Requests that a killed backend had taken are the next one's, which has its record: the recorder
/// follows both.
#[test]
fn a_disk_that_is_killed_while_it_is_recorded_resumes_and_is_replayed() {
    for options in ["event_idx indirect", "packed event_idx"] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 8);
        let copy = dir.path().join("copy.img");
        std::fs::copy(&image, &copy).unwrap();
        let start = || backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
        let mut disk = start();
        let recorder = Recorder::start(dir.path(), "blk", &disk);
        let spec = format!("blk,socket={}", recorder.proxy.socket.display());
        let vmm = killstorm::start(killstorm::storming(&spec, options));
        for _ in 0..8 {
            disk.process.wait_for("a frontend has connected", DEADLINE);
            // Not a synchronisation: any moment will do.
            std::thread::sleep(Duration::from_millis(30));
            disk.process.signal(libc::SIGKILL);
            disk.process.wait(DEADLINE);
            disk = start();
        }
        let requests = killstorm::finish(vmm);
        assert!(requests > 1000, "{requests}");
        let file = recorder.finish();
        let command = outboard_blk(&copy, "--queues 4");
        expect_equal(&file, &["--exec", &command]);
        assert!(std::fs::read(&copy).unwrap() == std::fs::read(&image).unwrap());
    }
}

#[test]
fn the_storage_daemon_of_qemu_answers_as_the_recorded_backend_did() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let cmdline = format!("sectors=64 seed={SEED} indirect event_idx");
    let file = record("blk", &disk, dir.path(), &cmdline);
    let (here, there) = (scratch(), scratch());
    let image = backend::disk_image(here.path(), 4);
    let daemon = backend::qemu_storage_daemon(here.path(), &image);
    let socket = daemon.socket.to_str().unwrap();
    expect_equal(&file, &["--socket", socket]);
    check_image(&image, 64);
    // Both have the same disk now.
    let other = backend::disk_image(there.path(), 4);
    std::fs::copy(&image, &other).unwrap();
    let command = outboard_blk(&other, "");
    let text = expect_replay(&file, &["--socket", socket, "--against", &command], 0);
    assert!(text.contains(" answered the same by both, 0 not"), "{text}");
}

#[test]
fn a_disk_that_answers_otherwise_is_found_out() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let file = record("blk", &disk, dir.path(), "mode=bench n=20 depth=1");
    let other = scratch();
    let other = backend::disk_image(other.path(), 4);
    let command = outboard_blk(&other, "");
    expect_equal(&file, &["--exec", &command]);
    let mut bytes = std::fs::read(&other).unwrap();
    bytes.fill(0xee);
    std::fs::write(&other, &bytes).unwrap();
    let text = expect_replay(&file, &["--exec", &command], 1);
    assert!(text.contains(", queue 0: IN sector "), "{text}");
    assert!(
        text.contains("the answers are different from byte 0 (0x0) on"),
        "{text}"
    );
    assert!(text.contains("ee ee ee ee"), "{text}");
    // One of another size is none of the recorded guest's.
    let larger = scratch();
    let larger = backend::disk_image(larger.path(), 8);
    let text = expect_replay(&file, &["--exec", &outboard_blk(&larger, "")], 2);
    let expected = "the backend has a disk of 16384 sectors, and the recorded one had 8192";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_disk_that_refuses_to_write_is_found_out() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let file = record("blk", &disk, dir.path(), &format!("sectors=64 seed={SEED}"));
    let copy = scratch();
    let copy = backend::disk_image(copy.path(), 4);
    let command = outboard_blk(&copy, "--readonly");
    let text = expect_replay(&file, &["--exec", &command], 1);
    assert!(text.contains(", queue 0: OUT sector 0, "), "{text}");
    assert!(
        text.contains("the backend says IOERR, and the recording OK"),
        "{text}"
    );
}

#[test]
fn a_guest_that_resets_its_disk_in_the_middle_of_its_work_is_replayed() {
    for mode in ["", "packed"] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 8);
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        let cmdline = format!("mode=reset resets=10 {mode}");
        let file = record("blk", &disk, dir.path(), &cmdline);
        let copy = scratch();
        let copy = backend::disk_image(copy.path(), 8);
        expect_equal(&file, &["--exec", &outboard_blk(&copy, "")]);
    }
}

#[test]
fn entropy_and_frames_are_replayed() {
    let dir = scratch();
    let rng = backend::outboard_rng(dir.path(), Path::new("/dev/urandom"));
    let file = record("rng", &rng, dir.path(), "mode=reset resets=3");
    let command = program::own("outboard-rng").display().to_string();
    expect_equal(&file, &["--exec", &command]);
    let peer = network::echo_peer(dir.path());
    let net = backend::outboard_net(dir.path(), &["--peer-connect", peer.to_str().unwrap()]);
    let file = record("net", &net, dir.path(), "mode=reset resets=3 event_idx");
    let nobody = dir.path().join("nobody");
    let command = program::own("outboard-net");
    let command = format!("{} --peer-listen {}", command.display(), nobody.display());
    let text = expect_replay(&file, &["--exec", &command], 0);
    assert!(
        text.contains("are buffers for what comes from elsewhere"),
        "{text}"
    );
}

#[test]
fn what_is_no_recording_is_refused() {
    let dir = scratch();
    let file = dir.path().join("file");
    std::fs::write(&file, "no recording at all").unwrap();
    let text = expect_replay(&file, &["--exec", "outboard-rng"], 2);
    assert!(
        text.contains("is not a recording of `outboard record`"),
        "{text}"
    );
    let rng = backend::outboard_rng(dir.path(), Path::new("/dev/urandom"));
    let file = record("rng", &rng, dir.path(), "mode=reset resets=1");
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let text = expect_replay(&file, &["--exec", "outboard-rng"], 2);
    assert!(text.contains("is damaged: record "), "{text}");
    // The backend behind a recorder that has ended is there for others.
    UnixStream::connect(&rng.socket).unwrap();
}
