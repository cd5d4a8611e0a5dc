//! Frames on their way to the peer of a stream: many of them in one system call.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::outbox::wait;

/// Size of a frame's length, which stands before it.
pub(super) const PREFIX: usize = 4;

/// How long a writer waits for a peer that takes nothing. It waits once; then frames are lost
/// until the peer takes something again.
const PATIENCE: Duration = Duration::from_millis(200);

/// So many bytes are not added to.
const ENOUGH: usize = 1 << 17;

/// Frames for a nonblocking socket, each behind its length. Each is written as a whole or not at
/// all.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
    has_stalled: bool,
}

impl Outgoing {
    /// Adds a frame of `len` bytes, which `fill` writes.
    pub fn add<E>(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&(len as u32).to_be_bytes());
        self.bytes.resize(start + PREFIX + len, 0);
        let filled = fill(&mut self.bytes[start + PREFIX..]);
        if filled.is_err() {
            self.bytes.truncate(start);
        }
        filled
    }

    /// Whether [`flush`](Self::flush) is to come before another frame.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= ENOUGH
    }

    /// Writes all frames. `false`: the peer takes nothing, and frames are lost.
    pub fn flush(&mut self, peer: BorrowedFd<'_>) -> io::Result<bool> {
        let patience = if self.has_stalled {
            Duration::ZERO
        } else {
            PATIENCE
        };
        let mut deadline = Instant::now() + patience;
        while self.written < self.bytes.len() {
            match rustix::io::write(peer, &self.bytes[self.written..]) {
                Ok(count) => {
                    self.written += count;
                    deadline = Instant::now() + PATIENCE;
                }
                Err(Errno::INTR) => (),
                Err(Errno::AGAIN) if wait(peer, PollFlags::OUT, deadline)? => (),
                Err(Errno::AGAIN) => {
                    self.has_stalled = true;
                    self.keep_begun();
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.bytes.clear();
        self.written = 0;
        self.has_stalled = false;
        Ok(true)
    }

    /// Drops all frames but one of which a part is written.
    fn keep_begun(&mut self) {
        let mut end = 0;
        while end < self.written
            && let Some(prefix) = self.bytes[end..].first_chunk::<PREFIX>()
        {
            end += PREFIX + u32::from_be_bytes(*prefix) as usize;
        }
        self.bytes.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    const FRAME: usize = 1000;

    fn add(outgoing: &mut Outgoing, byte: u8) {
        let fill = |bytes: &mut [u8]| {
            bytes.fill(byte);
            Ok::<_, io::Error>(())
        };
        outgoing.add(FRAME, fill).unwrap();
    }

    fn taken(reader: &mut UnixStream) -> Vec<u8> {
        let mut bytes = vec![];
        let mut room = [0; 1 << 16];
        while let Ok(len @ 1..) = reader.read(&mut room) {
            bytes.extend_from_slice(&room[..len]);
        }
        bytes
    }

    /// The bytes that the frames are filled with.
    fn frames(mut bytes: &[u8]) -> Vec<u8> {
        let mut frames = vec![];
        while let Some((prefix, rest)) = bytes.split_first_chunk() {
            let (frame, rest) = rest.split_at(u32::from_be_bytes(*prefix) as usize);
            assert!(frame.len() == FRAME && frame.iter().all(|byte| *byte == frame[0]));
            frames.push(frame[0]);
            bytes = rest;
        }
        frames
    }

    #[test]
    fn many_frames_are_one_write_and_a_bad_one_is_left_out() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let mut outgoing = Outgoing::default();
        add(&mut outgoing, 1);
        outgoing.add(70, |_| Err("not in memory")).unwrap_err();
        add(&mut outgoing, 2);
        far.set_nonblocking(true).unwrap();
        assert!(taken(&mut far).is_empty(), "nothing before the flush");
        assert!(outgoing.flush(near.as_fd()).unwrap());
        assert_eq!(frames(&taken(&mut far)), [1, 2]);
    }

    #[test]
    fn a_peer_that_sleeps_costs_one_wait_and_gets_whole_frames() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut outgoing = Outgoing::default();
        let start = Instant::now();
        let mut sent = 0;
        for _ in 0..1000 {
            for byte in 0..10 {
                add(&mut outgoing, byte);
            }
            sent += u32::from(outgoing.flush(near.as_fd()).unwrap());
        }
        assert!(sent < 1000);
        assert!(start.elapsed() < 10 * PATIENCE, "{:?}", start.elapsed());
        let mut bytes = taken(&mut far);
        // The rest of a frame that was begun comes before the next.
        add(&mut outgoing, 77);
        assert!(outgoing.flush(near.as_fd()).unwrap());
        bytes.extend(taken(&mut far));
        let frames = frames(&bytes);
        assert!(
            frames.len() > 10 && frames.last() == Some(&77),
            "{frames:?}"
        );
    }
}
