//! `GET /v1/events`: what happens to a machine, as it happens.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::process::{Process, Stream, wait_until};
use tests::vmm::Vmm;
use tests::{DEADLINE, backend, gdb, guest, program, scratch};

use crate::control::{ask, ctl, socket};
use crate::killstorm;
use crate::supervise::{backend_of, outboard_blk};

/// A client that follows.
struct Events(BufReader<UnixStream>);

impl Events {
    fn follow(dir: &Path) -> Self {
        let mut stream = UnixStream::connect(socket(dir)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
            .write_all(b"GET /v1/events HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut events = Self(BufReader::new(stream));
        assert!(events.line().starts_with("HTTP/1.1 200 "));
        while events.line() != ": following" {}
        events
    }

    /// The next line, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let count = self.0.read_line(&mut line).unwrap();
        assert_ne!(count, 0, "the machine has ended");
        line.trim_end().to_owned()
    }

    fn next(&mut self) -> Value {
        loop {
            if let Some(data) = self.line().strip_prefix("data: ") {
                return serde_json::from_str(data).unwrap();
            }
        }
    }

    fn expect(&mut self, expected: Value) {
        assert_eq!(self.next(), expected);
    }
}

#[test]
fn who_follows_sees_what_happens() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let spec = format!("blk,exec=\"{}\"", outboard_blk(&image, "--queues 4"));
    let vmm = killstorm::storming(&spec, "event_idx").arg("--api", socket(dir.path()));
    let vmm = killstorm::start(vmm.gdb(dir.path()));
    let mut events = Events::follow(dir.path());
    // Twice is once.
    for command in ["pause", "pause", "resume", "resume"] {
        ctl(dir.path(), &[command], 0);
    }
    events.expect(json!({"event": "paused"}));
    events.expect(json!({"event": "resumed"}));
    tests::process::kill(backend_of(&vmm, &image), libc::SIGKILL);
    let lost = events.next();
    assert_eq!(
        (&lost["event"], &lost["device"]),
        (&"backend_lost".into(), &"blk0".into())
    );
    assert!(!lost["reason"].as_str().unwrap().is_empty(), "{lost}");
    events.expect(json!({"event": "backend_connected", "device": "blk0", "connections": 2}));
    gdb::run(vmm.gdb_socket(), &guest::bare("virtio"), &["detach"]);
    events.expect(json!({"event": "gdb_attached"}));
    events.expect(json!({"event": "gdb_detached", "tracing": false}));
    ctl(dir.path(), &["reset"], 0);
    events.expect(json!({"event": "reset"}));
    killstorm::finish(vmm);
    events.expect(json!({"event": "ended", "status": 0}));
}

#[test]
fn a_device_that_needs_a_reset_is_told_of() {
    let dir = scratch();
    let image = backend::disk_image(dir.path(), 8);
    let disk = backend::outboard_blk(dir.path(), &image, &["--queues", "4"]);
    let spec = format!("blk,socket={},reconnect=off", disk.socket.display());
    let vmm = killstorm::storming(&spec, "event_idx").arg("--api", socket(dir.path()));
    let _vmm = killstorm::start(vmm);
    let mut events = Events::follow(dir.path());
    drop(disk);
    assert_eq!(events.next()["event"], "backend_lost");
    let broken = events.next();
    assert_eq!(
        (&broken["event"], &broken["device"]),
        (&"needs_reset".into(), &"blk0".into())
    );
    assert!(!broken["reason"].as_str().unwrap().is_empty(), "{broken}");
}

/// Whatever is done about it.
#[test]
fn a_panic_and_the_end_are_told() {
    for on_panic in [None, Some("exit")] {
        let dir = scratch();
        let vmm = Vmm::new(guest::bare("misbehave")).cmdline("case=pvpanic");
        let vmm = vmm
            .gdb(dir.path())
            .gdb_wait()
            .arg("--api", socket(dir.path()));
        let mut vmm = match on_panic {
            None => vmm.start(),
            Some(action) => vmm.arg("--on-panic", action).start(),
        };
        wait_until("it can be asked", DEADLINE, || socket(dir.path()).exists());
        let mut events = Events::follow(dir.path());
        ctl(dir.path(), &["resume"], 0);
        events.expect(json!({"event": "resumed"}));
        events.expect(json!({"event": "guest_panicked"}));
        let status = on_panic.map_or(0, |_| 3);
        events.expect(json!({"event": "ended", "status": status}));
        let mut rest = String::new();
        events.0.read_to_string(&mut rest).unwrap();
        assert_eq!(rest.trim_end(), "");
        vmm.process.expect_exit(status, DEADLINE);
    }
}

#[test]
fn so_many_follow_and_ctl_prints_lines() {
    let dir = scratch();
    let vmm = Vmm::new(guest::bare("misbehave"))
        .cmdline("case=halt-forever")
        .arg("--api", socket(dir.path()))
        .start();
    vmm.process.wait_for("halt-forever", DEADLINE);
    let start = |json: &[&str]| {
        let mut command = Command::new(program::own("outboard"));
        command.arg("ctl").arg("--api").arg(socket(dir.path()));
        Process::start("ctl", command.args(json).arg("events"))
    };
    let mut followers = [start(&[]), start(&["--json"])];
    let lines = [
        "paused\nresumed\n",
        "{\"event\":\"paused\"}\n{\"event\":\"resumed\"}\n",
    ];
    // There is no other sign that they follow. One may begin between the two.
    wait_until("both print what happens", DEADLINE, || {
        ctl(dir.path(), &["pause"], 0);
        ctl(dir.path(), &["resume"], 0);
        let mut expected = followers.iter().zip(lines);
        expected.all(|(follower, lines)| follower.printed(Stream::Out).contains(lines))
    });
    let others: Vec<_> = (0..6).map(|_| Events::follow(dir.path())).collect();
    let refused = ask(dir.path(), "GET /v1/events");
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("8 clients follow")
    );
    assert!(ctl(dir.path(), &["events"], 1).contains("8 clients follow"));
    // One that leaves makes room, and commands have always had some.
    drop(others);
    wait_until("there is room", DEADLINE, || {
        let mut stream = UnixStream::connect(socket(dir.path())).unwrap();
        stream
            .write_all(b"GET /v1/events HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line.starts_with("HTTP/1.1 200 ")
    });
    ctl(dir.path(), &["nmi"], 0);
    for follower in &mut followers {
        follower.expect_exit(0, DEADLINE);
    }
    let printed = followers[1].printed(Stream::Out);
    let last: Vec<Value> = printed
        .lines()
        .rev()
        .take(2)
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&last[1]["event"], &last[1]["vcpu"]),
        (&"guest_crashed".into(), &0.into())
    );
    assert_eq!(last[0], json!({"event": "ended", "status": 3}));
}
