//! Passes the kicks and calls of one connection on, behind what they are about.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use vhost_user_wire::Raw;

use super::in_flight::Lost;
use super::tape::Tape;
use super::vring::Signal;
use super::wiring::Wiring;
use crate::trace::faults::Injector;
use crate::trace::record::Side;
use crate::trace::{ConnectionRecorder, Interposer};

/// Called with what a user should know.
pub type Tell = Arc<dyn Fn(&str) + Send + Sync>;

pub struct Rings {
    wiring: Mutex<Wiring>,
    tape: Arc<Tape>,
    /// Readable when there are other descriptors to wait for.
    changed: OwnedFd,
    tell: Tell,
}

impl Rings {
    pub fn new(tape: &Arc<Tape>, lost: &Arc<Lost>, tell: &Tell) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            wiring: Mutex::new(Wiring::new(Arc::clone(tape), Arc::clone(lost))?),
            tape: Arc::clone(tape),
            changed: eventfd(0, flags)?,
            tell: Arc::clone(tell),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Wiring> {
        self.wiring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A full counter wakes too.
        let _ = rustix::io::write(&self.changed, &1u64.to_ne_bytes());
    }

    fn told<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|error| {
            (self.tell)(&format!(
                "the connection cannot be recorded, and is closed: {error}"
            ));
        })
    }

    /// The signals that have come; nothing if other descriptors are to be waited for.
    fn wait(&self, watched: Vec<Signal>) -> io::Result<Vec<Signal>> {
        let fds = watched.iter().map(|signal| signal.wire.as_fd());
        let fds = std::iter::once(self.changed.as_fd()).chain(fds);
        let mut fds: Vec<_> = fds
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        if poll_now(&mut fds)? == 0 {
            // While there is time, so that the file is whole if this process is killed.
            self.tape.flush();
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        // An error means that nothing has changed.
        let _ = rustix::io::read(&self.changed, &mut [0; size_of::<u64>()]);
        let signalled = watched.into_iter().zip(&ready[1..]);
        Ok(signalled
            .filter_map(|(signal, ready)| ready.then_some(signal))
            .collect())
    }
}

fn poll_now(fds: &mut [PollFd<'_>]) -> io::Result<usize> {
    match poll(fds, Some(&Timespec::default())) {
        Ok(ready) => Ok(ready),
        Err(Errno::INTR) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

impl Interposer for Rings {
    fn request(&self, raw: &mut Raw) -> io::Result<()> {
        let result = self.lock().request(raw);
        self.wake();
        self.told(result)
    }

    fn reply(&self, raw: &mut Raw) -> io::Result<()> {
        let result = self.lock().reply(raw);
        self.wake();
        self.told(result)
    }

    fn closed(&self, by: Side) {
        self.lock().close(by == Side::Backend);
        self.wake();
    }

    fn run(&self, _: &ConnectionRecorder, _: Option<&Injector>) -> io::Result<bool> {
        loop {
            let wiring = self.lock();
            if wiring.is_closed() {
                return Ok(false);
            }
            let watched: Vec<_> = wiring.watched().collect();
            drop(wiring);
            for signal in self.wait(watched)? {
                let result = self.lock().signal(&signal);
                self.told(result)?;
            }
        }
    }

    fn end(&self) {
        self.lock().close(false);
        self.wake();
    }
}
