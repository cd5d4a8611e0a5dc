//! Eventfds.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::error::DriverError;
use super::wait::wait_readable;

/// An eventfd that nobody waits in.
#[derive(Debug)]
pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> Result<Self, DriverError> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let fd = eventfd(0, flags).map_err(std::io::Error::from)?;
        Ok(Self(fd))
    }

    /// One that is full is one that its reader has yet to see.
    pub fn signal(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Takes what is pending; returns whether there was anything.
    pub fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }

    /// Whether it is signalled, now or within `time`.
    pub fn is_set_within(&self, time: Duration) -> Result<bool, DriverError> {
        Ok(wait_readable(&self.0, time)?)
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
