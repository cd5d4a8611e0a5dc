//! The gdb server: the body of the VMM's gdb thread.
//!
//! [`serve`] waits on the listening socket, the connection, the guest's events
//! and the VMM's stop request, and never polls. While nobody is attached it
//! touches nothing of the guest.

mod address;
mod listener;
mod poller;
mod stream;

use std::io;
use std::os::fd::BorrowedFd;

pub use address::{Address, AddressError};
pub use listener::{ListenError, Listener};

use self::poller::Poller;
use crate::target::{Event, Target};

const STOP: u64 = 0;
const LISTENER: u64 = 1;
const TARGET: u64 = 2;

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// The VMM holds the guest before its first instruction until gdb says
    /// `continue` (or detaches). Without it the guest runs already.
    pub wait: bool,
    /// Readable once the VMM wants [`serve`] to return, for example an eventfd.
    /// It is only polled, never read.
    pub stop: BorrowedFd<'a>,
}

/// Why [`serve`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The guest is gone, with this exit status.
    GuestExited(u8),
    /// The VMM asked through [`Options::stop`].
    Stopped,
}

/// The server cannot go on. The guest is unharmed, but no gdb can attach.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the gdb server cannot wait for events")]
    Wait(#[source] io::Error),
    #[error("the gdb server cannot accept a connection")]
    Accept(#[source] io::Error),
}

/// Serves one gdb at a time until the guest ends or the VMM asks to stop.
///
/// Blocks; the VMM gives it a thread of its own. Whatever way a client leaves,
/// the guest runs on with nothing planted and nothing armed. On
/// [`Options::stop`] an attached client is detached first.
///
/// # Errors
/// The host refuses to poll or accept. The trouble of one client is not an
/// error: it ends that client's connection and is logged.
pub fn serve(
    listener: &Listener,
    target: &mut dyn Target,
    options: &Options<'_>,
) -> Result<Ended, ServeError> {
    let poller = Poller::new().map_err(ServeError::Wait)?;
    poller.add(listener, LISTENER).map_err(ServeError::Wait)?;
    poller.add(options.stop, STOP).map_err(ServeError::Wait)?;
    poller
        .add(target.event_fd(), TARGET)
        .map_err(ServeError::Wait)?;
    loop {
        for ready in poller.wait(None).map_err(ServeError::Wait)? {
            match ready.token {
                STOP => return Ok(Ended::Stopped),
                LISTENER => drop(listener.accept().map_err(ServeError::Accept)?),
                _ => {
                    if let Some(Event::Exited(status)) = target.next_event() {
                        return Ok(Ended::GuestExited(status));
                    }
                }
            }
        }
    }
}
