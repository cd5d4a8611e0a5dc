//! What a backend says that it has, asked for without any of this project's code.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use tests::DEADLINE;

/// Requests, and the flags that every message has (vhost-user document, "Message
/// types" and "Header").
const GET_FEATURES: u32 = 1;
const GET_PROTOCOL_FEATURES: u32 = 15;
const VERSION: u32 = 1;
const HEADER: usize = 12;

/// VHOST_USER_F_PROTOCOL_FEATURES.
const HAS_PROTOCOL_FEATURES: u64 = 1 << 30;

/// Feature bits.
pub struct Offer {
    pub features: u64,
    pub protocol: u64,
}

impl Offer {
    /// Asks the backend that listens on `socket`.
    pub fn of(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let features = ask(&mut stream, GET_FEATURES);
        let protocol = match features & HAS_PROTOCOL_FEATURES {
            0 => 0,
            _ => ask(&mut stream, GET_PROTOCOL_FEATURES),
        };
        Self { features, protocol }
    }
}

fn ask(stream: &mut UnixStream, request: u32) -> u64 {
    let mut message = [0; HEADER];
    message[..4].copy_from_slice(&request.to_le_bytes());
    message[4..8].copy_from_slice(&VERSION.to_le_bytes());
    stream.write_all(&message).unwrap();
    let mut reply = [0; HEADER + 8];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..4], message[..4], "an answer to something else");
    u64::from_le_bytes(reply[HEADER..].try_into().unwrap())
}
