//! What a backend says that it has, asked for without any of this project's code.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::DEADLINE;

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
    ///
    /// # Panics
    /// It does not answer.
    pub fn of(socket: &Path) -> Self {
        let offer = Self::ask(socket);
        offer.unwrap_or_else(|error| panic!("{} offers nothing: {error}", socket.display()))
    }

    fn ask(socket: &Path) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let features = ask(&mut stream, GET_FEATURES)?;
        let protocol = match features & HAS_PROTOCOL_FEATURES {
            0 => 0,
            _ => ask(&mut stream, GET_PROTOCOL_FEATURES)?,
        };
        Ok(Self { features, protocol })
    }
}

fn ask(stream: &mut UnixStream, request: u32) -> io::Result<u64> {
    let mut message = [0; HEADER];
    message[..4].copy_from_slice(&request.to_le_bytes());
    message[4..8].copy_from_slice(&VERSION.to_le_bytes());
    stream.write_all(&message)?;
    let (mut header, mut value) = ([0; HEADER], [0; 8]);
    stream.read_exact(&mut header)?;
    stream.read_exact(&mut value)?;
    assert_eq!(header[..4], message[..4], "an answer to something else");
    Ok(u64::from_le_bytes(value))
}
