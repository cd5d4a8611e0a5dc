//! TCP connections whose other end is gone.
//!
//! A machine that has gone, or a link that is cut, does not close its connections. The
//! guest of a gdb there would stay stopped, and no other gdb could attach.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
    set_tcp_user_timeout,
};

/// How long the other end may give no sign of itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// After half of it the other end is asked for a sign, this often in all.
const PROBES: u32 = 3;

/// Ends every connection that `listener` accepts when its other end has been silent
/// for so long: a connection inherits the settings (tcp(7)).
///
/// Probes find out about a connection on which nothing happens. The user timeout
/// (RFC 5482) is for one on which something is to be sent.
pub(super) fn limit(listener: impl AsFd, patience: Duration) -> io::Result<()> {
    set_socket_keepalive(&listener, true)?;
    set_tcp_keepidle(&listener, patience / 2)?;
    set_tcp_keepintvl(&listener, patience / 2 / PROBES)?;
    set_tcp_keepcnt(&listener, PROBES)?;
    set_tcp_user_timeout(&listener, patience.as_millis() as u32)?;
    Ok(())
}

#[cfg(test)]
#[path = "silence_test.rs"]
mod tests;
