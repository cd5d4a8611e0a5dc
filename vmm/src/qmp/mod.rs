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

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use host_io::sockets::{self, BindError, SocketFile};

use crate::control::Control;
use connection::Connection;

/// Clients at the same time.
const MAX_CLIENTS: usize = 4;
/// Only its owner may use the socket: it gives all of the guest's memory.
const MODE: u32 = 0o600;
/// The pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("QMP: cannot listen on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: BindError,
    },
    #[error("QMP: cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Serves as long as it lives; the socket is removed with it.
pub struct Server {
    _file: SocketFile,
}

impl Server {
    /// Serves for as long as there is `control`.
    pub fn start(path: &Path, control: &Arc<Control>) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        let (listener, file) = sockets::bind(path).map_err(failed)?;
        fs::set_permissions(path, Permissions::from_mode(MODE))
            .map_err(|error| failed(error.into()))?;
        let control = Arc::downgrade(control);
        thread::Builder::new()
            .name("qmp".into())
            .spawn(move || accept(&listener, &control))
            .map_err(Error::Thread)?;
        Ok(Self { _file: file })
    }
}

/// Ends with the process: it waits for clients, but holds no part of the machine.
fn accept(listener: &UnixListener, control: &Weak<Control>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!(%error, "QMP: cannot accept a client");
                thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        if clients.fetch_add(1, Ordering::SeqCst) >= MAX_CLIENTS {
            tracing::warn!(
                "QMP: {MAX_CLIENTS} clients are being served; another one is turned away"
            );
            clients.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (served, control) = (clients.clone(), control.clone());
        let spawned = thread::Builder::new()
            .name("qmp client".into())
            .spawn(move || {
                if let Err(error) = session::serve(Connection::new(client), &control) {
                    tracing::debug!(%error, "QMP: a client has gone");
                }
                served.fetch_sub(1, Ordering::SeqCst);
            });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::SeqCst);
        }
    }
}
