//! Clients of a Unix socket, each of them in a thread of its own: of the control API and of
//! QMP.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use host_io::sockets::{self, BindError, SocketFile};

/// The pause after a failed accept.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{service}: cannot listen on {}", path.display())]
    Listen {
        service: &'static str,
        path: PathBuf,
        #[source]
        source: BindError,
    },
    #[error("{service}: cannot start a thread")]
    Thread {
        service: &'static str,
        #[source]
        source: io::Error,
    },
}

/// What clients get.
pub trait Service: Send + Sync + 'static {
    /// Its name in messages.
    const NAME: &'static str;
    /// The name of its threads.
    const THREAD: &'static str;
    /// Clients at the same time.
    const MAX_CLIENTS: usize;

    /// Serves a client until it leaves.
    fn serve(&self, client: UnixStream);

    /// Tells a client that there are too many, without waiting for it.
    fn turn_away(&self, client: UnixStream);
}

/// Serves as long as it lives; the socket is removed with it.
pub struct Server {
    _file: SocketFile,
}

impl Server {
    /// Its socket is for its owner only: who can connect controls the guest.
    pub fn start<S: Service>(path: &Path, service: S) -> Result<Self, Error> {
        let bound = sockets::bind_private(path);
        let (listener, file) = bound.map_err(|source| Error::Listen {
            service: S::NAME,
            path: path.to_owned(),
            source,
        })?;
        thread::Builder::new()
            .name(S::THREAD.into())
            .spawn(move || accept(&listener, &Arc::new(service)))
            .map_err(|source| Error::Thread {
                service: S::NAME,
                source,
            })?;
        Ok(Self { _file: file })
    }
}

/// Ends with the process.
fn accept<S: Service>(listener: &UnixListener, service: &Arc<S>) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!(%error, "{}: cannot accept a client", S::NAME);
                thread::sleep(ACCEPT_RETRY);
                continue;
            }
        };
        if clients.load(Ordering::SeqCst) >= S::MAX_CLIENTS {
            service.turn_away(client);
            continue;
        }
        let served = Served::new(clients.clone());
        let service = service.clone();
        // Without a thread the client goes, and is no longer counted.
        let _ = thread::Builder::new()
            .name(format!("{} client", S::THREAD))
            .spawn(move || {
                service.serve(client);
                drop(served);
            });
    }
}

/// One of the clients that are counted, until it is dropped.
struct Served(Arc<AtomicUsize>);

impl Served {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Gives back what a client says, byte by byte.
    struct Echo;

    impl Service for Echo {
        const NAME: &'static str = "echo";
        const THREAD: &'static str = "echo";
        const MAX_CLIENTS: usize = 2;

        fn serve(&self, mut client: UnixStream) {
            let mut byte = [0];
            while client.read_exact(&mut byte).is_ok() {
                let _ = client.write_all(&byte);
            }
        }

        fn turn_away(&self, mut client: UnixStream) {
            let _ = client.write_all(b"!");
        }
    }

    /// What `client` gets to hear when it says `?`.
    fn ask(client: &mut UnixStream) -> u8 {
        let mut answer = [0];
        // One that is turned away may be gone.
        let _ = client.write_all(b"?");
        client.read_exact(&mut answer).unwrap();
        answer[0]
    }

    #[test]
    fn the_owner_s_clients_are_served_up_to_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let server = Server::start(&path, Echo).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let connect = || UnixStream::connect(&path).unwrap();
        let mut clients = [connect(), connect()];
        assert!(clients.iter_mut().all(|client| ask(client) == b'?'));
        assert_eq!(ask(&mut connect()), b'!');
        // There is room again as soon as one has left.
        drop(clients);
        while ask(&mut connect()) == b'!' {
            thread::yield_now();
        }
        drop(server);
        assert!(!path.exists());
    }
}
