//! As much of QMP, QEMU's machine protocol, as tools need that know QEMU (`--qmp
//! unix:PATH`): docs/interop/qmp-spec of QEMU.
//!
//! | module | what it does |
//! |---|---|
//! | `connection` | JSON and descriptors on a socket |
//! | `session` | one client: greeting, negotiation, requests |
//! | `arguments` | the arguments of a command |
//! | `commands` | the commands |
//! | `dump` | `dump-guest-memory` |
//! | `hmp` | `human-monitor-command` |
//! | `error` | refusals, in QEMU's words |
//!
//! There are no events: tools ask when they want to know.

mod arguments;
mod commands;
mod connection;
mod dump;
mod error;
mod hmp;
mod session;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Weak};

use crate::clients::{Error, Server, Service};
use crate::control::Control;
use connection::Connection;

struct Qmp(Weak<Control>);

/// Serves for as long as there is `control`.
pub fn start(path: &Path, control: &Arc<Control>) -> Result<Server, Error> {
    Server::start(path, Qmp(Arc::downgrade(control)))
}

impl Service for Qmp {
    const NAME: &'static str = "QMP";
    const THREAD: &'static str = "qmp";
    const MAX_CLIENTS: usize = 4;

    fn serve(&self, client: UnixStream) {
        if let Err(error) = session::serve(Connection::new(client), &self.0) {
            tracing::debug!(%error, "QMP: a client has gone");
        }
    }

    fn turn_away(&self, _: UnixStream) {
        tracing::warn!(
            "QMP: {} clients are being served; another one is turned away",
            Self::MAX_CLIENTS
        );
    }
}
