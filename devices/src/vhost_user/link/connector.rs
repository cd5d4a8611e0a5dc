//! Where connections to a backend come from.

use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::vhost_user::error::Problem;

/// Between attempts. A backend gives no sign when it starts to listen.
const RETRY: Duration = Duration::from_millis(5);

/// A source of connections to one backend, one after another.
///
/// All calls come from one thread at a time, with the device's lock held; none
/// blocks but [`kill`](Self::kill) and [`exit_report`](Self::exit_report), which
/// are bounded.
pub trait Connector: Send {
    /// A connection, if there is one to be had now, in blocking mode. The
    /// problem is a [passing](Problem::may_pass) one where there may be one later.
    fn connect(&mut self) -> Result<UnixStream, Problem>;

    /// A descriptor that is readable when [`connect`](Self::connect) would
    /// succeed, where there is such a thing. It stays the same.
    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Kills the backend of the last connection. `true` when it is certain that
    /// it is not at work any more.
    fn kill(&mut self) -> bool {
        false
    }

    /// Why the backend of the last connection is gone, if more is known than
    /// that its socket was closed. Asked before there has been a whole session.
    fn exit_report(&mut self) -> Option<Problem> {
        None
    }

    /// Whether backends are started and ended from here.
    fn is_supervisor(&self) -> bool {
        false
    }

    /// The process behind the last connection, where more is known than the socket tells.
    fn process(&self) -> Option<u32> {
        None
    }

    /// Asks the backend of the last connection to end. The next connection is
    /// to another one.
    fn replace(&mut self) {}
}

/// Tries until there is a connection, for so long.
pub fn wait(connector: &mut dyn Connector, deadline: Duration) -> Result<UnixStream, Problem> {
    let deadline = Deadline::after(deadline);
    loop {
        let problem = match connector.connect() {
            Ok(stream) => return Ok(stream),
            Err(problem) => problem,
        };
        match deadline.left() {
            Some(left) if problem.may_pass() => thread::sleep(RETRY.min(left)),
            _ => return Err(problem.after(deadline.budget())),
        }
    }
}
