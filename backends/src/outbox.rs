//! Writing to a reader that may be slow, or never read again.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a writer waits for a reader that takes nothing. It waits once; then its messages
/// are lost until the reader takes something again.
const PATIENCE: Duration = Duration::from_millis(200);

/// Messages to a nonblocking descriptor, each written as a whole or not at all.
#[derive(Debug)]
pub struct Outbox {
    /// The rest of a message of which a part is written.
    rest: Vec<u8>,
    stalled: bool,
    /// How long a reader may take for a message while it takes some of it now and then.
    limit: Duration,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox::with_limit(PATIENCE)
    }
}

impl Outbox {
    /// An outbox for a reader that may take `limit` for a message, bit by bit.
    pub fn with_limit(limit: Duration) -> Self {
        Outbox {
            rest: Vec::new(),
            stalled: false,
            limit,
        }
    }

    /// Writes `message` to `fd`. `false`: the reader takes nothing, and the message is lost.
    pub fn send(&mut self, fd: BorrowedFd<'_>, message: &[u8]) -> io::Result<bool> {
        let limit = if self.stalled {
            Duration::ZERO
        } else {
            self.limit
        };
        let end = Instant::now() + limit;
        self.stalled = !self.flush(fd, end)?;
        if self.stalled {
            return Ok(false);
        }
        self.rest.extend_from_slice(message);
        self.stalled = !self.flush(fd, end)?;
        if self.stalled && self.rest.len() == message.len() {
            self.rest.clear();
            return Ok(false);
        }
        Ok(true)
    }

    /// Waits a moment for the rest of a message to be taken.
    pub fn finish(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.flush(fd, Instant::now() + self.limit).map(|_| ())
    }

    /// Forgets the rest of a message: there is a new reader.
    pub fn clear(&mut self) {
        *self = Outbox::with_limit(self.limit);
    }

    /// Whether nothing is left, at `end` or when nothing was taken for too long.
    fn flush(&mut self, fd: BorrowedFd<'_>, end: Instant) -> io::Result<bool> {
        let mut deadline = end.min(Instant::now() + PATIENCE);
        while !self.rest.is_empty() {
            match rustix::io::write(fd, &self.rest) {
                Ok(n) => {
                    self.rest.drain(..n);
                    deadline = end.min(Instant::now() + PATIENCE);
                }
                Err(rustix::io::Errno::INTR) => (),
                Err(rustix::io::Errno::AGAIN) if wait(fd, PollFlags::OUT, deadline)? => (),
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}

/// Waits until `fd` is ready for `events`; `false` at the deadline.
pub(crate) fn wait(fd: BorrowedFd<'_>, events: PollFlags, deadline: Instant) -> io::Result<bool> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut fds = [PollFd::from_borrowed_fd(fd, events)];
    match poll(&mut fds, Some(&timeout)) {
        Err(rustix::io::Errno::INTR) => Ok(true),
        result => Ok(result? > 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_slow_reader_is_waited_for_as_long_as_it_reads() {
        let (reader, writer) = io::pipe().unwrap();
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let message = vec![b'x'; 256 << 10];
        let reading = std::thread::spawn(move || {
            let mut reader = io::BufReader::with_capacity(16 << 10, reader);
            let mut piece = vec![0; 16 << 10];
            for _ in 0..16 {
                std::thread::sleep(PATIENCE / 4);
                reader.read_exact(&mut piece).unwrap();
            }
        });
        let mut outbox = Outbox::with_limit(100 * PATIENCE);
        assert!(outbox.send(writer.as_fd(), &message).unwrap());
        assert!(outbox.rest.is_empty());
        reading.join().unwrap();
    }

    #[test]
    fn a_reader_that_sleeps_costs_one_wait_and_gets_whole_messages() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        far.set_nonblocking(true).unwrap();
        let mut outbox = Outbox::default();
        let message = |i: u32| [i.to_ne_bytes(); 250].concat();
        let mut sent = vec![];
        let start = Instant::now();
        for i in 0..2000 {
            if outbox.send(near.as_fd(), &message(i)).unwrap() {
                sent.push(i);
            }
        }
        assert!(sent.len() < 2000);
        assert!(start.elapsed() < 10 * PATIENCE, "{:?}", start.elapsed());
        let mut got = vec![];
        let mut buffer = [0; 1 << 16];
        for i in 2000..2010 {
            while let Ok(n) = far.read(&mut buffer) {
                got.extend_from_slice(&buffer[..n]);
            }
            if outbox.send(near.as_fd(), &message(i)).unwrap() {
                sent.push(i);
            }
        }
        while let Ok(n) = far.read(&mut buffer) {
            got.extend_from_slice(&buffer[..n]);
        }
        assert_eq!(sent.last(), Some(&2009));
        let expected: Vec<u8> = sent.into_iter().flat_map(message).collect();
        assert!(got == expected, "whole messages, in order");
    }
}
