//! A link over a Unix stream socket: frames behind their length, a big-endian 32-bit number.
//!
//! passt, QEMU's `-netdev stream` and a peer of our own speak this protocol. The other end may
//! come and go; the link is up while it is there. Frames are whole packets with complete
//! checksums, so there are no offloads.

use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::{AsFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::link::Link;
use super::outgoing::{Outgoing, PREFIX};
use super::packet::MAX_PACKET;
use crate::peer::{Meet, Peer};
use crate::ratelimit::RateLimit;
use crate::warn_limited;

/// Longest frame that is sent: for a longer one, passt closes the connection.
const MAX_SENT: usize = 65535;
/// Bytes read at once, at most. The longest frame fits behind what is left of one.
const ROOM: usize = 2 * (PREFIX + MAX_PACKET);

static LOG: RateLimit = RateLimit::for_logs();

/// Frames to and from a peer.
pub struct FrameStream {
    peer: Peer,
    input: Mutex<Talk<Input>>,
    output: Mutex<Talk<Outgoing>>,
}

/// One direction of the exchange with a peer, of which the next peer has nothing.
#[derive(Default)]
struct Talk<T> {
    peer: Weak<UnixStream>,
    state: T,
}

impl<T: Default> Talk<T> {
    fn with(&mut self, peer: &Arc<UnixStream>) -> &mut T {
        if self.peer.as_ptr() != Arc::as_ptr(peer) {
            self.peer = Arc::downgrade(peer);
            self.state = T::default();
        }
        &mut self.state
    }
}

/// Bytes that have been read but not been made packets of.
struct Input {
    room: Box<[u8]>,
    bytes: Range<usize>,
}

impl Default for Input {
    fn default() -> Self {
        Input {
            room: vec![0; ROOM].into(),
            bytes: 0..0,
        }
    }
}

impl Input {
    /// The next frame, if all of it has come.
    fn frame(&mut self) -> Result<Option<&[u8]>, io::Error> {
        let rest = &self.room[self.bytes.clone()];
        let Some((prefix, rest)) = rest.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*prefix) as usize;
        if length == 0 || length > MAX_PACKET {
            return Err(io::Error::other(format!(
                "the peer announced a frame of {length} bytes"
            )));
        }
        let Some(frame) = rest.get(..length) else {
            return Ok(None);
        };
        self.bytes.start += PREFIX + length;
        Ok(Some(frame))
    }

    /// Reads more. `false` if there is nothing now.
    fn fill(&mut self, mut stream: &UnixStream) -> io::Result<bool> {
        self.room.copy_within(self.bytes.clone(), 0);
        self.bytes = 0..self.bytes.len();
        match stream.read(&mut self.room[self.bytes.end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.bytes.end += count;
                Ok(true)
            }
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
    }

    fn write(&self, output: &mut Outgoing, stream: &Arc<UnixStream>) {
        match output.flush(stream.as_fd()) {
            Ok(true) => (),
            Ok(false) => warn_limited!(LOG, "the network peer takes nothing; packets are lost"),
            Err(error) => self.lose(stream, &error),
        }
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
        let Some(stream) = self.peer.current() else {
            return Ok(None);
        };
        let mut input = lock(&self.input);
        let input = input.with(&stream);
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
        self.lose(&stream, &failed);
        Ok(None)
    }

    fn send<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<io::Result<()>, E> {
        if len > MAX_SENT {
            let text = "it is longer than any frame on a stream";
            return Ok(Err(io::Error::other(text)));
        }
        let Some(stream) = self.peer.current() else {
            return Ok(Ok(()));
        };
        let mut output = lock(&self.output);
        let output = output.with(&stream);
        output.add(len, fill)?;
        if output.is_full() {
            self.write(output, &stream);
        }
        Ok(Ok(()))
    }

    fn flush(&self) {
        if let Some(stream) = self.peer.current() {
            self.write(lock(&self.output).with(&stream), &stream);
        }
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
