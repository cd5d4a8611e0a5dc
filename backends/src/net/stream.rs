//! A link over a Unix stream socket: frames behind their length, a big-endian 32-bit number.
//!
//! passt, QEMU's `-netdev stream` and a peer of our own speak this protocol. The other end may
//! come and go; the link is up while it is there. Frames are whole packets with complete
//! checksums, so there are no offloads.

use std::io::{self, Read};
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};

use super::link::Link;
use super::packet::MAX_PACKET;
use crate::outbox::Outbox;
use crate::peer::{Meet, Peer};
use crate::ratelimit::RateLimit;
use crate::warn_limited;

/// Size of a frame's length.
const PREFIX: usize = 4;
/// Longest frame that is sent: for a longer one, passt closes the connection.
const MAX_SENT: usize = 65535;
/// Bytes read at once.
const CHUNK: usize = 1 << 16;

static LOG: RateLimit = RateLimit::for_logs();

/// Frames to and from a peer.
pub struct FrameStream {
    peer: Peer,
    input: Mutex<Input>,
    output: Mutex<Outbox>,
}

/// Bytes that have been read but not been made packets of.
#[derive(Default)]
struct Input {
    bytes: Vec<u8>,
    start: usize,
}

impl Input {
    /// The next frame, if all of it has come.
    fn frame(&mut self) -> Result<Option<&[u8]>, io::Error> {
        let rest = &self.bytes[self.start..];
        let Some(prefix) = rest.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(io::Error::other(format!(
                "the peer announced a frame of {length} bytes"
            )));
        }
        let frame = self.start + PREFIX..self.start + PREFIX + length;
        if frame.end > self.bytes.len() {
            return Ok(None);
        }
        self.start = frame.end;
        Ok(Some(&self.bytes[frame]))
    }

    /// Reads more. `false` if there is nothing now.
    fn fill(&mut self, mut stream: &UnixStream) -> io::Result<bool> {
        self.bytes.drain(..self.start);
        self.start = 0;
        let len = self.bytes.len();
        self.bytes.resize(len + CHUNK, 0);
        let result = stream.read(&mut self.bytes[len..]);
        self.bytes.truncate(len + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(e),
        }
    }
}

impl FrameStream {
    /// A link to a peer, which is met as `meet` says.
    pub fn start(meet: Meet) -> io::Result<Self> {
        Ok(FrameStream {
            peer: Peer::start("network", meet)?,
            input: Mutex::default(),
            output: Mutex::default(),
        })
    }

    fn lose(&self, stream: &Arc<UnixStream>, error: &io::Error) {
        if error.kind() != io::ErrorKind::UnexpectedEof {
            warn_limited!(LOG, %error, "the network peer is given up");
        }
        self.peer.lost(stream);
        lock(&self.output).clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Link for FrameStream {
    fn configure(&self, _header_size: usize, _guest_offloads: u64) -> io::Result<()> {
        Ok(())
    }

    fn ready_fd(&self, _pair: u16) -> RawFd {
        self.peer.ready_fd()
    }

    fn receive(
        &self,
        _pair: u16,
        header_size: usize,
        packet: &mut [u8],
    ) -> io::Result<Option<usize>> {
        let mut input = lock(&self.input);
        let Some(stream) = self.peer.current() else {
            return Ok(None);
        };
        let failed = loop {
            match input.frame() {
                Ok(Some(frame)) => {
                    let length = (header_size + frame.len()).min(packet.len());
                    packet[..header_size].fill(0);
                    packet[header_size..length].copy_from_slice(&frame[..length - header_size]);
                    return Ok(Some(length));
                }
                Ok(None) => (),
                Err(error) => break error,
            }
            match input.fill(&stream) {
                Ok(true) => (),
                Ok(false) => return Ok(None),
                Err(error) => break error,
            }
        };
        *input = Input::default();
        self.lose(&stream, &failed);
        Ok(None)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        let Some(stream) = self.peer.current() else {
            return Ok(());
        };
        if frame.len() > MAX_SENT {
            return Err(io::Error::other("it is longer than any frame on a stream"));
        }
        let mut message = (frame.len() as u32).to_be_bytes().to_vec();
        message.extend_from_slice(frame);
        let sent = lock(&self.output).send(stream.as_fd(), &message);
        match sent {
            Ok(true) => (),
            Ok(false) => warn_limited!(LOG, "the network peer takes nothing; packets are lost"),
            Err(error) => self.lose(&stream, &error),
        }
        Ok(())
    }

    fn is_up(&self) -> bool {
        self.peer.current().is_some()
    }

    fn change_fd(&self) -> Option<RawFd> {
        Some(self.peer.changes_fd())
    }

    fn changed(&self) {
        self.peer.changed();
    }
}
