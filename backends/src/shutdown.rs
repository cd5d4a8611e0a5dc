//! Asking a daemon to end: from another thread, or by SIGTERM, SIGINT and SIGHUP.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};
use vmm_sys_util::signal::create_sigset;

/// The waiting end.
#[derive(Debug)]
pub struct Shutdown {
    event: EventConsumer,
    handle: ShutdownHandle,
    signals: Option<OwnedFd>,
}

/// The asking end. Asking twice is the same as asking once.
#[derive(Debug, Clone)]
pub struct ShutdownHandle {
    event: Arc<EventNotifier>,
}

impl Shutdown {
    /// Ends only when [`ShutdownHandle::shutdown`] is called.
    pub fn new() -> io::Result<Self> {
        let (event, notifier) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
        Ok(Shutdown {
            event,
            handle: ShutdownHandle {
                event: Arc::new(notifier),
            },
            signals: None,
        })
    }

    /// Ends on SIGTERM and SIGINT too, and on SIGHUP unless nohup has it ignored.
    ///
    /// Call it before any thread is started: the signals are blocked in the calling thread, and
    /// only threads started afterwards inherit that.
    pub fn on_signals() -> io::Result<Self> {
        let mut signals = vec![libc::SIGTERM, libc::SIGINT];
        if !is_ignored(libc::SIGHUP) {
            signals.push(libc::SIGHUP);
        }
        let fd = signal_fd(&signals)?;
        // A file at its size limit then gives an error instead of a signal that ends the process.
        // SAFETY: no handler is installed.
        unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
        Ok(Shutdown {
            signals: Some(fd),
            ..Shutdown::new()?
        })
    }

    /// The asking end.
    pub fn handle(&self) -> ShutdownHandle {
        self.handle.clone()
    }

    /// Descriptors that become readable, and stay so, when it is time to end.
    pub fn fds(&self) -> impl Iterator<Item = RawFd> + '_ {
        let signals = self.signals.as_ref().map(AsRawFd::as_raw_fd);
        std::iter::once(self.event.as_raw_fd()).chain(signals)
    }
}

fn is_ignored(signal: libc::c_int) -> bool {
    // SAFETY: an all-zero structure is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is set, and `action` is valid.
    let result = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}

/// A descriptor that is readable when one of `signals` has come. They are blocked in the calling
/// thread and in those that it starts afterwards.
pub(crate) fn signal_fd(signals: &[libc::c_int]) -> io::Result<OwnedFd> {
    let set = create_sigset(signals)?;
    // SAFETY: `set` is an initialised signal set that outlives the call; the old mask is not
    // asked for.
    let error = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    // SAFETY: `set` is an initialised signal set that outlives the call.
    let fd = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just created and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl ShutdownHandle {
    /// Asks the daemon to end.
    pub fn shutdown(&self) {
        // The only failure is a counter at its maximum, which is readable as it should be.
        let _ = self.event.notify();
    }
}
