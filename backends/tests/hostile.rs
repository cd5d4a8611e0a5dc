//! Frontends that send what no frontend should, against every backend program: whatever comes,
//! the program lives, serves the next frontend, and holds no descriptor of the last one.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{DEADLINE, connect_within, memfd};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Requests of the document, and some that are not in it.
const CODES: std::ops::Range<u32> = 0..50;
const CASES: u32 = 256;

/// A message: its header's fields, its payload, and how many descriptors come along.
#[derive(Debug, Clone)]
struct Message {
    code: u32,
    flags: u32,
    /// In place of the payload's length.
    size: Option<u32>,
    payload: Vec<u8>,
    fds: usize,
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    // Small numbers in the places of indices, counts and sizes; or anything.
    let words = prop::collection::vec(prop_oneof![0u64..4, any::<u64>()], 0..10);
    let words = words.prop_map(|words| words.into_iter().flat_map(u64::to_ne_bytes).collect());
    prop_oneof![words, prop::collection::vec(any::<u8>(), 0..80)]
}

fn messages() -> impl Strategy<Value = Message> {
    let flags = prop_oneof![8 => Just(1u32), 8 => Just(9u32), 1 => any::<u32>()];
    let size = prop::option::weighted(0.05, prop_oneof![0u32..200, any::<u32>()]);
    let fds = prop_oneof![6 => Just(0usize), 6 => Just(1), 1 => 2usize..20, 1 => Just(250)];
    (CODES, flags, size, payloads(), fds).prop_map(|(code, flags, size, payload, fds)| Message {
        code,
        flags,
        size,
        payload,
        fds,
    })
}

/// Sends it. The backend may have hung up already.
fn send(stream: &UnixStream, message: &Message, file: &File) -> bool {
    let size = message.size.unwrap_or(message.payload.len() as u32);
    let mut bytes = Vec::new();
    for field in [message.code, message.flags, size] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend_from_slice(&message.payload);
    let fds: Vec<RawFd> = vec![file.as_raw_fd(); message.fds];
    stream.send_with_fds(&[&bytes[..]], &fds).is_ok()
}

/// A running backend program.
struct Backend {
    child: Child,
    dir: TempDir,
}

impl Backend {
    fn start(program: &str, options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let child = Command::new(program)
            .current_dir(&dir)
            .args(["--socket", "socket"])
            .args(options)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Backend { child, dir }
    }

    fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Sends all messages, reads what is answered, and leaves.
    fn torment(&self, socket: &Path, messages: &[Message], negotiate: bool) {
        let Ok(stream) = UnixStream::connect(socket) else {
            panic!("it has ended, or stopped listening");
        };
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nonblocking(true).unwrap();
        let file = memfd(4096);
        let mut answers = [0; 4096];
        if negotiate {
            let bits = (Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIG).bits();
            let set_protocol_features = Message {
                code: 16,
                flags: 1,
                size: None,
                payload: bits.to_ne_bytes().to_vec(),
                fds: 0,
            };
            send(&stream, &set_protocol_features, &file);
        }
        for message in messages {
            if !send(&stream, message, &file) {
                break;
            }
            while matches!((&stream).read(&mut answers), Ok(1..)) {}
        }
    }

    /// Descriptors when there is no frontend: the fewest that are seen ten times in a row.
    fn settled(&self) -> usize {
        let (mut fewest, mut seen) = (usize::MAX, 0);
        while seen < 10 {
            let now = self.descriptors();
            (fewest, seen) = match now.cmp(&fewest) {
                std::cmp::Ordering::Less => (now, 1),
                std::cmp::Ordering::Equal => (fewest, seen + 1),
                std::cmp::Ordering::Greater => (fewest, 0),
            };
            std::thread::sleep(Duration::from_millis(5));
        }
        fewest
    }

    /// Waits until the program holds `count` descriptors again.
    fn settles_at(&self, count: usize) {
        let end = Instant::now() + DEADLINE;
        while self.descriptors() != count {
            assert!(
                Instant::now() < end,
                "{} descriptors instead of {count}",
                self.descriptors()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn survives(program: &str, options: &[&str], queues: u64) {
    let backend = Backend::start(program, options);
    let socket = backend.dir.path().join("socket");
    let served = || {
        let mut driver = connect_within(DEADLINE, &socket, 1);
        driver.start();
        assert_eq!(driver.frontend.get_queue_num().unwrap(), queues);
    };
    served();
    // The first frontend may leave something that is kept for the next: its like is not a leak.
    served();
    let before = backend.settled();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    let strategy = (prop::collection::vec(messages(), 1..20), any::<bool>());
    let result = runner.run(&strategy, |(messages, negotiate)| {
        backend.torment(&socket, &messages, negotiate);
        Ok(())
    });
    result.unwrap();
    served();
    backend.settles_at(before);
}

#[test]
fn outboard_blk_survives_hostile_frontends() {
    let options = ["--path", "disk.img", "--queues", "4"];
    survives(env!("CARGO_BIN_EXE_outboard-blk"), &options, 4);
}

#[test]
fn outboard_net_survives_hostile_frontends() {
    let options = ["--peer-listen", "peer"];
    survives(env!("CARGO_BIN_EXE_outboard-net"), &options, 3);
}

#[test]
fn outboard_rng_survives_hostile_frontends() {
    survives(env!("CARGO_BIN_EXE_outboard-rng"), &[], 1);
}

#[test]
fn outboard_console_survives_hostile_frontends() {
    let options = ["--terminal", "pty"];
    survives(env!("CARGO_BIN_EXE_outboard-console"), &options, 2);
}
