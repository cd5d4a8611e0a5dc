//! Why does a device hang? Drivers and backends that are broken on purpose, and what
//! `outboard explain` and `monitor explain` say of them.

mod broken;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::backend::{self, Backend};
use tests::process::{Process, Stream, resume, stop, wait_until};
use tests::vmm::{Running, Vmm};
use tests::{DEADLINE, gdb, guest, program, scratch};

use crate::control::{ask, ctl, socket};
use crate::killstorm;
use crate::supervise::{backend_of, outboard_blk};
use crate::trace::proxy;

/// What `outboard explain` prints, which ends with `status`.
fn explain(dir: &Path, device: &[&str], status: i32) -> String {
    let mut command = Command::new(program::own("outboard"));
    command.arg("explain").arg("--api").arg(socket(dir));
    let mut process = Process::start("explain", command.args(device));
    process.expect_exit(status, DEADLINE);
    process.printed(match status {
        0 => Stream::Out,
        _ => Stream::Err,
    })
}

/// Asks until the answer has `expected`, and returns it.
#[track_caller]
fn expect(dir: &Path, vmm: &Running, expected: &str) -> String {
    wait_until("the control API", DEADLINE, || socket(dir).exists());
    let mut text = String::new();
    let end = Instant::now() + DEADLINE;
    while !text.contains(expected) {
        let transcript = vmm.process.transcript();
        assert!(
            Instant::now() < end,
            "no {expected:?} in\n{text}\n{transcript}"
        );
        text = explain(dir, &[], 0);
    }
    text
}

/// A guest that is held by gdb at its start, all of it in ring 0: some hosts trap nothing in
/// ring 3.
fn held(dir: &Path, device: &str, backend: &Backend, cmdline: &str) -> Vmm {
    Vmm::new(guest::bare("virtio"))
        .cmdline(&format!("ring=0 {cmdline}"))
        .device(device, &backend.socket)
        .arg("--api", socket(dir))
        .gdb(dir)
        .gdb_wait()
}

fn with_gdb(vmm: &Running, commands: &[&str]) -> String {
    let socket = vmm.gdb_socket();
    wait_until("gdb's socket", DEADLINE, || socket.exists());
    let mut gdb = gdb::start_merged(socket, &guest::bare("virtio"), commands);
    gdb.expect_exit(0, DEADLINE);
    gdb.printed(Stream::Out)
}

/// gdb's command that stops each thread of a process. The signal alone may leave a thread
/// running for a moment.
fn stop_by_gdb(pid: u32) -> String {
    format!(
        "shell kill -STOP {pid}; for thread in /proc/{pid}/task/*/stat; do \
         until read -r line <$thread; case $line in *') T '*) ;; *) false ;; esac; \
         do :; done; done"
    )
}

#[test]
fn a_backend_that_is_stopped_is_named_and_not_waited_for() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let spec = format!("blk,exec=\"{}\"", outboard_blk(&image, "--queues 4"));
    let vmm = killstorm::storming(&spec, "event_idx").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm);
    let pid = backend_of(&vmm, &image);
    stop(pid);
    let asked = Instant::now();
    let text = expect(dir.path(), &vmm, "=> the backend is stopped by a signal");
    assert!(text.contains("\n    stopped (T)"), "{text}");
    let unseen = "requests: it does not run";
    expect(dir.path(), &vmm, unseen);
    // A command waits for the backend, with the device's lock.
    let mut restart = Command::new(program::own("outboard"));
    restart
        .args(["ctl", "--api"])
        .arg(socket(dir.path()))
        .args(["restart", "blk0"]);
    let mut restart = Process::start("ctl", &mut restart);
    expect(dir.path(), &vmm, "=> somebody waits for the backend");
    assert!(asked.elapsed() < Duration::from_secs(30));
    resume(pid);
    restart.expect_exit(0, DEADLINE);
    killstorm::finish(vmm);
}

/// One that was not started from here, and reads its kicks.
#[test]
fn a_kick_that_waits_for_a_stopped_backend_is_named() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::qemu_storage_daemon(dir.path(), &image);
    let vmm = held(dir.path(), "blk", &disk, "").start();
    let stop = stop_by_gdb(disk.process.pid());
    with_gdb(&vmm, &["tbreak virtqueue_add", "continue", &stop, "detach"]);
    let text = "=> the kick is waiting in the eventfd: the backend has not read it for ";
    let text = expect(dir.path(), &vmm, text);
    assert!(
        text.contains("=> the backend is stopped by a signal"),
        "{text}"
    );
    resume(disk.process.pid());
    vmm.process.wait_for("blk: ok sectors=64", DEADLINE);
}

#[test]
fn a_driver_that_never_fills_its_receive_queue_is_named() {
    let dir = scratch();
    let link = dir.path().join("link");
    let net = backend::outboard_net(dir.path(), &["--peer-connect", link.to_str().unwrap()]);
    let vmm = held(dir.path(), "net", &net, "net=echo").start();
    with_gdb(
        &vmm,
        &[
            "tbreak virtio_driver_ok",
            "continue",
            "set var pairs[0].receive.free_count = 0",
            "detach",
        ],
    );
    vmm.process.wait_for("net: echo ready", DEADLINE);
    let text = expect(
        dir.path(),
        &vmm,
        "=> the driver never filled the receive queue",
    );
    assert_eq!(text.matches("=>").count(), 1, "{text}");
}

#[test]
fn a_device_of_which_nothing_is_asked_is_idle() {
    let dir = scratch();
    let link = dir.path().join("link");
    let net = backend::outboard_net(dir.path(), &["--peer-connect", link.to_str().unwrap()]);
    let vmm = held(dir.path(), "net", &net, "net=echo").start();
    let text = with_gdb(&vmm, &["monitor explain", "monitor explain none", "detach"]);
    assert!(
        text.contains("  => no driver has taken the device"),
        "{text}"
    );
    assert!(
        text.contains("no device \"none\"; there are: net0"),
        "{text}"
    );
    vmm.process.wait_for("net: echo ready", DEADLINE);
    let text = expect(dir.path(), &vmm, "=> idle: nothing is asked of it");
    assert_eq!(text.matches("=>").count(), 1, "{text}");
    assert!(text.contains("net0: net, status ACKNOWLEDGE"), "{text}");
    assert!(
        text.contains("available 32, used 0, in flight 32"),
        "{text}"
    );
    assert_eq!(
        explain(dir.path(), &["net0"], 0).lines().next(),
        text.lines().next()
    );
    let refused = explain(dir.path(), &["none"], 1);
    assert!(
        refused.contains("there is no device \"none\"; there are net0"),
        "{refused}"
    );
    let text = with_gdb(&vmm, &["monitor explain net0", "detach"]);
    assert!(text.contains("=> idle: nothing is asked of it"), "{text}");
    ctl(dir.path(), &["pause"], 0);
    let paused = explain(dir.path(), &[], 0);
    assert!(paused.starts_with("the guest is paused: "), "{paused}");
}

/// The kick before is long done when the guest is stopped, and this one is taken away.
#[test]
fn a_driver_that_does_not_kick_is_named() {
    let unkicked = "=> the backend has not been kicked";
    for (options, more) in [
        ("event_idx", " since it asked for kicks: avail_event was "),
        (
            "",
            ": 1 requests are available, and its record has none of them in flight",
        ),
    ] {
        let dir = scratch();
        let image = backend::disk_image(dir.path(), 4);
        let disk = backend::outboard_blk(dir.path(), &image, &[]);
        let vmm = held(dir.path(), "blk", &disk, options).start();
        with_gdb(
            &vmm,
            &[
                "tbreak virtqueue_add",
                "continue",
                "tbreak virtqueue_kick",
                "continue",
                "set var queue->split.last_kick = queue->split.avail.index",
                "detach",
            ],
        );
        expect(dir.path(), &vmm, &format!("{unkicked}{more}"));
    }
}

#[test]
fn an_interrupt_that_is_swallowed_is_named() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 4);
    let disk = backend::outboard_blk(dir.path(), &image, &[]);
    let faults = dir.path().join("faults.toml");
    std::fs::write(&faults, "[[fault]]\ncall = 0\nafter = 2\ndo = \"drop\"\n").unwrap();
    let options = ["--rings", "--faults", faults.to_str().unwrap()];
    let swallows = proxy(&disk, &dir.path().join("trace.txt"), &options);
    let vmm = Vmm::new(guest::bare("virtio"))
        .cmdline("event_idx")
        .device("blk", &swallows.socket)
        .arg("--api", socket(dir.path()))
        .start();
    let text = "=> the driver waits for an interrupt that the backend did not send, or that the \
                guest did not take: used_event was ";
    expect(dir.path(), &vmm, text);
}

#[test]
fn a_device_that_needs_a_reset_and_has_no_backend_is_named() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let spec = format!("blk,socket={},reconnect=off", disk.socket.display());
    let vmm = killstorm::storming(&spec, "").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm);
    disk.process.signal(libc::SIGKILL);
    let text = expect(dir.path(), &vmm, "=> DEVICE_NEEDS_RESET is set");
    assert!(text.contains("=> no backend is connected: "), "{text}");
}

#[test]
fn the_answer_of_the_api_has_what_the_text_has() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let spec = format!(
        "blk,exec=\"{}\",id=the disk",
        outboard_blk(&image, "--queues 4")
    );
    let vmm = killstorm::storming(&spec, "packed").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm);
    let request = "GET /v1/devices/the%20disk/explain";
    let mut answer = Value::Null;
    wait_until("a device that works", DEADLINE, || {
        answer = ask(dir.path(), request);
        let found = answer["devices"][0]["diagnoses"][0]
            .as_str()
            .unwrap_or_default();
        found.starts_with("it works: ")
    });
    let disk = &answer["devices"][0];
    assert_eq!(
        (&disk["id"], &answer["state"]),
        (&"the disk".into(), &"running".into())
    );
    assert_eq!(disk["backend"]["pid"], backend_of(&vmm, &image));
    assert_eq!(disk["queues"][3]["state"], "running");
    assert_eq!(
        disk["queues"][3]["now"]["ring"]["broken"],
        Value::Array(Vec::new())
    );
    killstorm::finish(vmm);
}
