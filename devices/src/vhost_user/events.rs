//! One descriptor to wait on that outlives connections.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// An event source to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Source {
    /// The connection to the backend.
    Backend,
    /// The backend's own requests.
    Requests,
    /// The backend's signs of errors.
    RingErrors,
    /// The time for the next step of a reconnection.
    Timer,
    /// A backend that connects to us.
    Arrival,
    /// Files in shared memory that have been cut short.
    CutFiles,
    /// The time to check whether queues are served.
    Check,
}

impl Source {
    const ALL: [Self; 7] = [
        Self::Backend,
        Self::Requests,
        Self::RingErrors,
        Self::Timer,
        Self::Arrival,
        Self::CutFiles,
        Self::Check,
    ];
}

/// An epoll instance, itself readable when a descriptor that it watches is. The
/// kernel drops closed descriptors from it, so that nobody has to when a
/// connection is lost.
#[derive(Debug)]
pub struct Events(Epoll);

impl Events {
    pub fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Becomes readable when `fd` is, or when its peer hangs up.
    pub fn watch(&self, fd: &impl AsRawFd, source: Source) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, source as u64);
        self.0.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    /// Becomes readable when `fd` is, once. `fd` is always the same one.
    pub fn watch_once(&self, fd: &impl AsRawFd, source: Source) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, source as u64);
        let fd = fd.as_raw_fd();
        match self.0.ctl(ControlOperation::Modify, fd, event) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.0.ctl(ControlOperation::Add, fd, event)
            }
            result => result,
        }
    }

    /// One source that is ready, in turn. Never blocks.
    ///
    /// Only one, because handling it may change the meaning of the others.
    pub fn ready(&self) -> Option<Source> {
        let mut found = [EpollEvent::default()];
        // With a timeout of 0 it can only be that nothing was found.
        if self.0.wait(0, &mut found).unwrap_or(0) == 0 {
            return None;
        }
        let is_found = |source: &Source| *source as u64 == found[0].data();
        Source::ALL.into_iter().find(is_found)
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the epoll descriptor is open as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn ready_while_a_watched_socket_has_bytes_or_hung_up_and_no_longer() {
        let events = Events::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        events.watch(&ours, Source::Backend).unwrap();
        assert_eq!(events.ready(), None);
        theirs.write_all(b"x").unwrap();
        assert_eq!(events.ready(), Some(Source::Backend));
        drop(theirs);
        assert_eq!(events.ready(), Some(Source::Backend));
        drop(ours);
        assert_eq!(events.ready(), None);
    }

    #[test]
    fn what_is_watched_once_is_ready_once_each_time() {
        let events = Events::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(b"x").unwrap();
        for _ in 0..3 {
            events.watch_once(&ours, Source::Arrival).unwrap();
            assert_eq!(events.ready(), Some(Source::Arrival));
            assert_eq!(events.ready(), None);
        }
    }

    #[test]
    fn none_of_several_starves() {
        let events = Events::new().unwrap();
        let pairs = Source::ALL.map(|source| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            events.watch(&ours, source).unwrap();
            theirs.write_all(b"x").unwrap();
            (ours, theirs)
        });
        for source in Source::ALL {
            let turns = (0..pairs.len()).map(|_| events.ready());
            assert_eq!(turns.filter(|turn| *turn == Some(source)).count(), 1);
        }
    }
}
