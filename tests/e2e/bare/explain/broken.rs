//! Drivers that give up or break their ring, and backends whose processes do not run.

use std::path::{Path, PathBuf};

use tests::backend;
use tests::process::{Process, resume};
use tests::vmm::Vmm;
use tests::{DEADLINE, program, scratch};

use super::{expect, held, socket, stop_by_gdb, with_gdb};
use crate::host::provides;
use crate::killstorm;
use crate::supervise::outboard_blk;

/// What was to be a kick sets the status instead.
#[test]
fn a_driver_that_gives_up_is_named() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = held(dir.path(), "blk", &disk, "").start();
    with_gdb(
        &vmm,
        &[
            "tbreak virtio_write if reg == VIRTIO_QUEUE_NOTIFY",
            "continue",
            "set var reg = VIRTIO_STATUS",
            "set var value = 0x8f",
            "detach",
        ],
    );
    let text = "=> the driver has set FAILED: it has given up on the device";
    let text = expect(dir.path(), &vmm, text);
    assert!(text.contains("DRIVER_OK|FAILED"), "{text}");
}

/// The backend gives such a chain back, and is stopped before it is there.
#[test]
fn a_chain_that_comes_back_to_itself_is_named() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let vmm = held(dir.path(), "blk", &disk, "").start();
    let stop = stop_by_gdb(disk.process.pid());
    let head = "queue->split.avail.ring[queue->split.avail.index - 1]";
    with_gdb(
        &vmm,
        &[
            "tbreak virtqueue_add",
            "continue",
            &stop,
            "tbreak virtqueue_kick",
            "continue",
            &format!("set var $head = {head}"),
            "set var queue->split.desc[$head].flags = 1",
            "set var queue->split.desc[$head].next = $head",
            "detach",
        ],
    );
    expect(
        dir.path(),
        &vmm,
        "=> the driver has broken the ring: chain 0: the chain comes back to descriptor 0",
    );
    resume(disk.process.pid());
}

/// A script for Python, and the command that runs it.
fn python(dir: &Path, script: &str) -> String {
    let file = dir.join("script.py");
    std::fs::write(&file, script).unwrap();
    let python = program::system("python3");
    format!("{} {}", python.display(), file.display())
}

/// A backend beside another process of its group, which `more` makes.
fn with_company(dir: &Path, more: &str) -> Vmm {
    let image = backend::disk_image(dir, 8);
    let command = python(
        dir,
        &format!(
            "import ctypes, os, signal, sys\n\
             if os.fork() == 0:\n    {more}\n\
             os.execv(sys.argv[1], sys.argv[1:])\n"
        ),
    );
    let disk = outboard_blk(&image, "--queues 4 --fd {fd}");
    let spec = format!("blk,exec=\"{command} {disk}\"");
    killstorm::storming(&spec, "").arg("--api", socket(dir))
}

/// A process that has called vfork waits in the kernel until its child has executed a program.
#[test]
fn a_process_of_the_backend_s_that_cannot_be_interrupted_is_named() {
    if !provides("python3") {
        return;
    }
    let dir = scratch();
    let vfork = "ctypes.CDLL(None).vfork(); signal.pause()";
    let vmm = killstorm::start(with_company(dir.path(), vfork));
    let text = "waits for a disk or for another resource of the kernel, and cannot be interrupted";
    let text = expect(dir.path(), &vmm, text);
    assert!(text.contains("=> the backend's thread "), "{text}");
    killstorm::finish(vmm);
}

#[test]
fn a_process_of_the_backend_s_that_has_ended_is_named() {
    if !provides("python3") {
        return;
    }
    let dir = scratch();
    let vmm = killstorm::start(with_company(dir.path(), "os._exit(0)"));
    let text = expect(dir.path(), &vmm, "has ended, and nobody has waited for it");
    assert!(text.contains("=> the backend's thread "), "{text}");
    killstorm::finish(vmm);
}

/// Whoever listened is known to the kernel, and has left the connection to its child.
#[test]
fn a_backend_whose_process_is_gone_is_named() {
    if !provides("python3") {
        return;
    }
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let path = dir.path().join("left.sock");
    let script = "import os, socket, sys\n\
                  listener = socket.socket(socket.AF_UNIX)\n\
                  listener.bind(sys.argv[1])\n\
                  listener.listen()\n\
                  if os.fork() != 0:\n    os._exit(0)\n\
                  null = os.open(os.devnull, os.O_RDWR)\n\
                  os.dup2(null, 1)\n\
                  os.dup2(null, 2)\n\
                  connection = listener.accept()[0]\n\
                  connection.set_inheritable(True)\n\
                  os.execv(sys.argv[2], sys.argv[2:] + ['--fd', str(connection.fileno())])\n";
    let command = python(dir.path(), script);
    let disk = outboard_blk(&image, "--queues 4");
    let mut words = command.split(' ').chain([path.to_str().unwrap()]);
    let mut left = std::process::Command::new(PathBuf::from(words.next().unwrap()));
    left.args(words).args(disk.split_whitespace());
    let mut left = Process::start("left", &mut left);
    left.expect_exit(0, DEADLINE);
    let spec = format!("blk,socket={}", path.display());
    let vmm = killstorm::storming(&spec, "").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm);
    let gone = format!("=> the backend's process {} is gone", left.pid());
    expect(dir.path(), &vmm, &gone);
    killstorm::finish(vmm);
}
