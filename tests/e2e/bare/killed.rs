//! A VMM that is killed leaves nothing that hinders the next one, and what its guest has flushed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Instant;

use tests::vmm::Vmm;
use tests::{DEADLINE, backend, guest, program, repetitions, scratch};

use crate::killstorm::{Moments, storming};
use crate::supervise::{expect_gone, outboard_blk};
use crate::virtio::{SEED, check_image};

/// `make soak` asks for more.
const KILLS: u64 = 30;
/// Longest life of a machine, in microseconds: from before its first socket to a guest at work.
const LIFE: u64 = 400_000;
const MIB: u64 = 8;

/// Whatever makes a file, a socket or a process: the same command line each time.
fn machine(dir: &Path) -> Vmm {
    let path = |name: &str| dir.join(name).display().to_string();
    let disk = outboard_blk(&dir.join("disk.img"), "--queues 4");
    let console = program::own("outboard-console").display().to_string();
    let entropy = program::own("outboard-rng").display().to_string();
    storming(&format!("blk,exec=\"{disk}\""), "event_idx")
        .temporary_files(&dir.join("temporary"))
        .arg(
            "--device",
            format!(
                "console,exec=\"{console} --terminal unix={}\"",
                path("hvc0")
            ),
        )
        .arg(
            "--device",
            format!("rng,exec=\"{entropy} --socket {{socket}}\""),
        )
        .arg("--api", path("api"))
        .arg("--qmp", format!("unix:{}", path("qmp")))
        .arg("--trace", path("trace"))
        .arg("--log-file", path("log"))
        .gdb(dir)
}

/// What is in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn a_machine_killed_at_any_moment_starts_again_with_the_same_command_line() {
    let dir = scratch();
    let dir = dir.path();
    backend::disk_image(dir, MIB);
    let temporary = dir.join("temporary");
    fs::create_dir(&temporary).unwrap();
    let (mut moments, begun) = (Moments::new(LIFE), Instant::now());
    let (kills, mut left) = (repetitions("OUTBOARD_VMM_KILLS", KILLS), 0);
    for _ in 0..kills {
        let mut vmm = machine(dir).start();
        // Not a synchronisation: any moment will do.
        std::thread::sleep(moments.next());
        vmm.process.signal(libc::SIGKILL);
        let status = vmm.process.wait(DEADLINE);
        let transcript = vmm.process.transcript();
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{transcript}");
        expect_gone(dir);
        left = left.max(names(&temporary).len());
    }
    println!(
        "{kills} kills in {:.1?}, at most {left} directories left",
        begun.elapsed()
    );
    assert!(
        left <= 2,
        "the dead one's and one that it did not come to remove"
    );
    let mut last = machine(dir).start();
    last.process.wait_for("storm: start", DEADLINE);
    last.process.signal(libc::SIGTERM);
    last.process.expect_exit(0, DEADLINE);
    expect_gone(dir);
    assert_eq!(names(&temporary), [""; 0]);
    assert_eq!(names(dir), ["disk.img", "log", "temporary", "trace"]);
}

#[test]
fn what_was_flushed_is_there_when_the_machine_is_killed() {
    const SECTORS: u64 = 8192;
    for options in ["", "--direct"] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), MIB);
        let device = format!("blk,exec=\"{}\"", outboard_blk(&image, options));
        let mut vmm = Vmm::new(guest::bare("virtio"))
            .cmdline(&format!("sectors={SECTORS} seed={SEED}"))
            .arg("--device", device)
            .start();
        vmm.process.wait_for("blk: flushed", DEADLINE);
        vmm.process.signal(libc::SIGKILL);
        vmm.process.wait(DEADLINE);
        expect_gone(&image);
        check_image(&image, SECTORS);
    }
}
