//! Frontends that send what no frontend should, against every backend program: whatever comes,
//! the program lives, serves the next frontend, and holds no descriptor of the last one.

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use common::program::{Backend, cases};
use common::{DEADLINE, memfd};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Requests of the document, and some that are not in it.
const CODES: std::ops::Range<u32> = 0..50;
const CASES: u32 = 256;
/// What is shared as guest memory, in bytes, and where that is said to be at the frontend.
const MEMORY: u64 = 1 << 16;
const USER: u64 = 0x7f00_0000_0000;

/// A message: its header's fields, its payload, and how many descriptors of which kind come along.
#[derive(Debug, Clone)]
struct Message {
    code: u32,
    flags: u32,
    /// In place of the payload's length.
    size: Option<u32>,
    payload: Vec<u8>,
    fds: usize,
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Memory,
    Event,
    Socket,
    Null,
}

/// One descriptor of each kind, to be sent as often as it takes.
struct Files {
    memory: File,
    event: EventFd,
    socket: UnixStream,
    null: File,
}

impl Files {
    fn new() -> Self {
        Files {
            memory: memfd(MEMORY),
            event: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
            // Its other end is closed.
            socket: UnixStream::pair().unwrap().0,
            null: File::open("/dev/null").unwrap(),
        }
    }

    fn get(&self, kind: Kind) -> RawFd {
        match kind {
            Kind::Memory => self.memory.as_raw_fd(),
            Kind::Event => self.event.as_raw_fd(),
            Kind::Socket => self.socket.as_raw_fd(),
            Kind::Null => self.null.as_raw_fd(),
        }
    }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Memory),
        Just(Kind::Event),
        Just(Kind::Socket),
        Just(Kind::Null)
    ]
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
    (CODES, flags, size, payloads(), fds, kinds()).prop_map(
        |(code, flags, size, payload, fds, kind)| Message {
            code,
            flags,
            size,
            payload,
            fds,
            kind,
        },
    )
}

/// Messages as a frontend sends them, in any order, and some with a little wrong.
fn nearly_good() -> impl Strategy<Value = Message> {
    let place = prop_oneof![Just(0u64), Just(MEMORY), 0..2 * MEMORY];
    let good = (0usize..15, 0u32..5, 0u32..3, place).prop_map(|(n, queue, value, place)| {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let longs = |longs: &[u64]| longs.iter().flat_map(|long| long.to_ne_bytes()).collect();
        let region = [place, MEMORY, USER + place, 0];
        let ring = [
            USER + place,
            USER + place + 0x2000,
            USER + place + 0x1000,
            0,
        ];
        let addresses = [u64::from(queue), ring[0], ring[1], ring[2], 0];
        // Request code, payload, descriptors, and their kind (vhost-user document).
        let (code, payload, fds, kind): (u32, Vec<u8>, usize, Kind) = match n {
            0 => (3, vec![], 0, Kind::Null),
            1 => (2, longs(&[1 << 32 | 1 << 30 | 1 << 29]), 0, Kind::Null),
            2 => (5, [longs(&[1]), longs(&region)].concat(), 1, Kind::Memory),
            3 => (37, [longs(&[0]), longs(&region)].concat(), 1, Kind::Memory),
            4 => (38, [longs(&[0]), longs(&region)].concat(), 0, Kind::Memory),
            5 => (8, words(&[queue, 16 << value]), 0, Kind::Null),
            6 => (9, longs(&addresses), 0, Kind::Null),
            7 => (10, words(&[queue, value]), 0, Kind::Null),
            8 => (11, words(&[queue, 0]), 0, Kind::Null),
            9 => (12, longs(&[u64::from(queue)]), 1, Kind::Event),
            10 => (13, longs(&[u64::from(queue)]), 1, Kind::Event),
            11 => (18, words(&[queue, value & 1]), 0, Kind::Null),
            12 => (
                31,
                [longs(&[0, 0]), words(&[4 | 16 << 16, 0])].concat(),
                0,
                Kind::Null,
            ),
            13 => (
                32,
                [longs(&[1088, 0]), words(&[4 | 16 << 16, 0])].concat(),
                1,
                Kind::Memory,
            ),
            _ => (34, vec![], 0, Kind::Null),
        };
        Message {
            code,
            flags: 9,
            size: None,
            payload,
            fds,
            kind,
        }
    });
    let wrong = (0u8..12, 0usize..40, any::<u8>(), kinds());
    (good, wrong).prop_map(|(mut message, (what, at, byte, kind))| {
        match what {
            0 => message.payload.truncate(at),
            1 => message.payload.resize(message.payload.len() + at, byte),
            2 => message.fds = usize::from(byte % 9),
            3 => message.kind = kind,
            4 => {
                if let Some(place) = message.payload.get_mut(at) {
                    *place = byte;
                }
            }
            5 => message.size = Some(at as u32),
            _ => {}
        }
        message
    })
}

/// Sends it. The backend may have hung up already.
fn send(stream: &UnixStream, message: &Message, files: &Files) -> bool {
    let size = message.size.unwrap_or(message.payload.len() as u32);
    let mut bytes = Vec::new();
    for field in [message.code, message.flags, size] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend_from_slice(&message.payload);
    let fds: Vec<RawFd> = vec![files.get(message.kind); message.fds];
    stream.send_with_fds(&[&bytes[..]], &fds).is_ok()
}

/// Sends all messages, reads what is answered, and leaves.
fn torment(socket: &Path, messages: &[Message], negotiate: bool, to_the_end: bool) {
    let Ok(stream) = UnixStream::connect(socket) else {
        panic!("it has ended, or stopped listening");
    };
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    stream.set_nonblocking(true).unwrap();
    let files = Files::new();
    let mut answers = [0; 4096];
    if negotiate {
        let bits = (Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIG).bits();
        let set_protocol_features = Message {
            code: 16,
            flags: 1,
            size: None,
            payload: bits.to_ne_bytes().to_vec(),
            fds: 0,
            kind: Kind::Null,
        };
        send(&stream, &set_protocol_features, &files);
    }
    for message in messages {
        if !send(&stream, message, &files) {
            break;
        }
        while matches!((&stream).read(&mut answers), Ok(1..)) {}
    }
    if to_the_end {
        // Who leaves at once is not listened to any more when the first answer fails.
        let _ = stream.shutdown(Shutdown::Write);
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let late = loop {
            match (&stream).read(&mut answers) {
                Ok(1..) => {}
                Ok(0) => break false,
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        assert!(!late, "it does not hang up");
    }
}

fn survives(program: &str, options: &[&str], queues: u64) {
    let backend = Backend::start(program, options);
    backend.serves(queues);
    // The first frontend may leave something that is kept for the next: its like is not a leak.
    backend.serves(queues);
    let before = backend.settled();
    let mut runner = TestRunner::new(ProptestConfig::with_cases(cases(CASES)));
    // Many a random message is the last that a backend listens to.
    let sequence = prop_oneof![
        prop::collection::vec(messages(), 1..20),
        prop::collection::vec(nearly_good(), 1..40),
    ];
    let strategy = (sequence, any::<bool>(), any::<bool>());
    let result = runner.run(&strategy, |(messages, negotiate, to_the_end)| {
        torment(&backend.socket(), &messages, negotiate, to_the_end);
        Ok(())
    });
    result.unwrap();
    backend.serves(queues);
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
