//! File descriptors of a backend's own, watched by its workers.

use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// File descriptors that a backend wants to hear about in `handle_event`, one set per worker.
#[derive(Debug, Clone)]
pub struct Listeners {
    epoll: Arc<Epoll>,
    fds: Arc<Mutex<Vec<(u16, RawFd)>>>,
    first: u16,
}

impl Listeners {
    /// Listeners at a worker's `epoll`, with events from `first` on.
    pub(crate) fn new(epoll: Arc<Epoll>, first: u16) -> Self {
        Listeners {
            epoll,
            fds: Arc::default(),
            first,
        }
    }

    /// The smallest `event` that may be registered: those below it belong to rings and to the
    /// stock daemon's exit event, whose numbering backends know.
    pub fn first_event(&self) -> u16 {
        self.first
    }

    /// Calls `handle_event` with `event` whenever `fd` shows `set`. The caller keeps `fd` open
    /// until [`Listeners::unregister`].
    pub fn register(&self, fd: RawFd, set: EventSet, event: u16) -> io::Result<()> {
        if event < self.first {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "event {event} is reserved; the first free one is {}",
                    self.first
                ),
            ));
        }
        let mut fds = self.lock();
        self.epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(set, u64::from(event)),
        )?;
        fds.push((event, fd));
        Ok(())
    }

    /// Undoes [`Listeners::register`].
    pub fn unregister(&self, event: u16) -> io::Result<()> {
        let mut fds = self.lock();
        let at = fds
            .iter()
            .position(|&(e, _)| e == event)
            .ok_or(io::ErrorKind::NotFound)?;
        let (_, fd) = fds.swap_remove(at);
        self.epoll
            .ctl(ControlOperation::Delete, fd, EpollEvent::default())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u16, RawFd)>> {
        self.fds.lock().unwrap_or_else(|e| e.into_inner())
    }
}
