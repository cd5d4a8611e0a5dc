//! One descriptor to wait on that outlives connections.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// An epoll instance, itself readable when one of what it watches is. With
/// nothing to watch it is never readable, so that nobody has to forget it when
/// a connection is lost.
#[derive(Debug)]
pub struct Events(Epoll);

impl Events {
    pub fn new() -> io::Result<Self> {
        Epoll::new().map(Self)
    }

    /// Becomes readable when `fd` is, or when its peer hangs up.
    pub fn watch(&self, fd: &impl AsFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN, 0);
        self.0
            .ctl(ControlOperation::Add, fd.as_fd().as_raw_fd(), event)
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

    fn readable(events: &Events) -> bool {
        let mut found = [EpollEvent::default()];
        events.0.wait(0, &mut found).unwrap() == 1
    }

    #[test]
    fn readable_while_a_watched_socket_has_bytes_or_hung_up_and_no_longer() {
        let events = Events::new().unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        events.watch(&ours).unwrap();
        assert!(!readable(&events));
        theirs.write_all(b"x").unwrap();
        assert!(readable(&events));
        drop(theirs);
        assert!(readable(&events));
        drop(ours);
        assert!(!readable(&events));
    }
}
