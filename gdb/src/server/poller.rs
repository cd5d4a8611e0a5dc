//! Waiting for several file descriptors at once, on epoll.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Duration;

use epoll::{ControlOptions, Event, Events};

/// Most events that one [`Poller::wait`] reports; the rest come with the next.
const BATCH: usize = 16;

/// A descriptor that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ready {
    /// The token the descriptor was added with.
    pub token: u64,
    /// Error and hang-up count as readable: reading tells what happened.
    pub readable: bool,
    pub writable: bool,
}

/// An epoll instance; level-triggered.
#[derive(Debug)]
pub(super) struct Poller {
    fd: RawFd,
}

impl Poller {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            fd: epoll::create(true)?,
        })
    }

    /// Reports `fd` as `token` while it is readable. Closing the descriptor
    /// takes it out again.
    pub fn add(&self, fd: impl AsFd, token: u64) -> io::Result<()> {
        let event = Event::new(Events::EPOLLIN, token);
        let fd = fd.as_fd().as_raw_fd();
        epoll::ctl(self.fd, ControlOptions::EPOLL_CTL_ADD, fd, event)
    }

    /// Changes what a descriptor is waited for.
    pub fn set(&self, fd: impl AsFd, token: u64, read: bool, write: bool) -> io::Result<()> {
        let mut events = Events::empty();
        events.set(Events::EPOLLIN, read);
        events.set(Events::EPOLLOUT, write);
        let event = Event::new(events, token);
        let fd = fd.as_fd().as_raw_fd();
        epoll::ctl(self.fd, ControlOptions::EPOLL_CTL_MOD, fd, event)
    }

    /// Waits until something is ready, at most for `timeout`. A signal ends the
    /// wait with nothing ready.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Ready>> {
        let mut events = [Event { events: 0, data: 0 }; BATCH];
        let count = match epoll::wait(self.fd, milliseconds(timeout), &mut events) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(events.iter().take(count).map(ready).collect())
    }
}

fn ready(event: &Event) -> Ready {
    let (events, token) = (event.events, event.data);
    Ready {
        token,
        readable: events & !Events::EPOLLOUT.bits() != 0,
        writable: events & Events::EPOLLOUT.bits() != 0,
    }
}

/// epoll's timeout: rounded up, so that a deadline has passed when it returns.
fn milliseconds(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(time) => i32::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i32::MAX),
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and Linux frees the descriptor anyway.
        let _ = epoll::close(self.fd);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn reports_what_is_ready_by_token() {
        let poller = Poller::new().unwrap();
        let (a, mut b) = UnixStream::pair().unwrap();
        poller.add(&a, 7).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);

        b.write_all(b"x").unwrap();
        let readable = Ready {
            token: 7,
            readable: true,
            writable: false,
        };
        assert_eq!(poller.wait(None).unwrap(), [readable]);

        poller.set(&a, 7, false, true).unwrap();
        let writable = Ready {
            token: 7,
            readable: false,
            writable: true,
        };
        assert_eq!(poller.wait(None).unwrap(), [writable]);

        poller.set(&a, 7, false, false).unwrap();
        drop(b);
        assert!(
            poller.wait(None).unwrap()[0].readable,
            "a hang-up is always told"
        );
    }

    #[test]
    fn rounds_a_deadline_up() {
        assert_eq!(milliseconds(None), -1);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_nanos(1_000))), 1);
        assert_eq!(milliseconds(Some(Duration::MAX)), i32::MAX);
    }
}
