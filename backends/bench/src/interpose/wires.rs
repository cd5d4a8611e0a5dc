//! An eventfd of the proxy's in the place of a peer's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// A signal that the proxy passes on.
#[derive(Debug)]
pub struct Interposed {
    /// Waited on.
    source: File,
    target: File,
}

impl Interposed {
    /// A signal to `file` comes here first: the sender gets the second value for it.
    pub fn before(file: File) -> io::Result<(Self, File)> {
        let (source, theirs) = new()?;
        let target = file;
        Ok((Self { source, target }, theirs))
    }

    /// A signal from `file` comes here first: the receiver gets the second value for it.
    pub fn behind(file: File) -> io::Result<(Self, File)> {
        let (target, theirs) = new()?;
        let source = file;
        Ok((Self { source, target }, theirs))
    }

    /// Takes the signal.
    pub fn take(&self) -> io::Result<()> {
        (&self.source).read_exact(&mut [0; size_of::<u64>()])
    }

    pub fn pass_on(&self) -> io::Result<()> {
        (&self.target).write_all(&1u64.to_ne_bytes())
    }
}

impl AsFd for Interposed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

/// Twice the same: what one end does not take, the other can give back.
fn new() -> io::Result<(File, File)> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let event: OwnedFd = eventfd(0, flags)?;
    let copy = event.try_clone()?;
    Ok((event.into(), copy.into()))
}

/// A kick that was not passed on is the next backend's.
pub fn put_back(kick: &Interposed) {
    // A full counter is a signal already.
    let _ = (&kick.source).write_all(&1u64.to_ne_bytes());
}

/// A kick that the backend has not taken is the next backend's.
pub fn give_back(kick: &Interposed) {
    let mut count = [0; size_of::<u64>()];
    if (&kick.target).read_exact(&mut count).is_ok() {
        put_back(kick);
    }
}

/// Whether this is an eventfd, not a pipe as some systems use.
pub fn is_eventfd(file: &File) -> bool {
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    std::fs::read_link(link).is_ok_and(|link| link.as_os_str() == "anon_inode:[eventfd]")
}
