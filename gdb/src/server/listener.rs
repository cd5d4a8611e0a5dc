//! The socket that gdb connects to.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use host_io::sockets::{self, BindError, SocketFile};

use super::address::Address;
use super::silence;
use super::stream::Stream;

/// A process that can open the socket controls the guest, so only its owner may.
const SOCKET_MODE: u32 = 0o600;

/// The server cannot listen where the user asked.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("another process listens on {}; stop it or choose another path", .0.display())]
    InUse(PathBuf),
    #[error("{} exists and is not a socket; remove it or choose another path", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen for gdb on {address}")]
    Bind {
        address: Address,
        #[source]
        source: io::Error,
    },
}

/// A bound socket. Dropping it removes the file of a Unix socket.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: Address,
    /// Only held to be dropped.
    _file: Option<SocketFile>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `address`. A Unix socket file that nobody listens on any more
    /// is replaced; one that somebody does is left alone.
    ///
    /// # Errors
    /// The path is taken, or the system refuses to bind.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        let refused = |source| ListenError::Bind {
            address: address.clone(),
            source,
        };
        let (socket, address, file) = match address {
            Address::Unix(path) => {
                let (listener, file) = bind_unix(path).map_err(|error| match error {
                    BindError::InUse => ListenError::InUse(path.clone()),
                    BindError::NotASocket => ListenError::NotASocket(path.clone()),
                    BindError::Io(error) => refused(error),
                })?;
                (Socket::Unix(listener), address.clone(), Some(file))
            }
            Address::Tcp { host, port } => {
                let listener = bind_tcp(host, *port).map_err(refused)?;
                let port = listener.local_addr().map_err(refused)?.port();
                let host = host.clone();
                (Socket::Tcp(listener), Address::Tcp { host, port }, None)
            }
        };
        Ok(Self {
            socket,
            address,
            _file: file,
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next client that waits, if there is one.
    pub(super) fn accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match &self.socket {
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
        };
        match accepted {
            Ok(stream) => {
                stream.prepare()?;
                Ok(Some(stream))
            }
            // The client may have left again between the poll and here.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::WouldBlock | ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Unix(listener) => listener.as_fd(),
            Socket::Tcp(listener) => listener.as_fd(),
        }
    }
}

fn bind_unix(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    let (listener, file) = sockets::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    listener.set_nonblocking(true)?;
    Ok((listener, file))
}

fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((host, port))?;
    listener.set_nonblocking(true)?;
    silence::limit(&listener, silence::PATIENCE)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn at(path: &Path) -> Address {
        Address::Unix(path.to_owned())
    }

    #[test]
    fn replaces_a_stale_socket_and_removes_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "std leaves the file behind: it is stale");

        let listener = Listener::bind(&at(&path)).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, SOCKET_MODE);
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn leaves_a_live_socket_and_other_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _live = UnixListener::bind(&path).unwrap();
        assert!(matches!(
            Listener::bind(&at(&path)),
            Err(ListenError::InUse(_))
        ));
        assert!(path.exists());

        let file = dir.path().join("f");
        fs::write(&file, "text").unwrap();
        assert!(matches!(
            Listener::bind(&at(&file)),
            Err(ListenError::NotASocket(_))
        ));
        assert_eq!(fs::read(&file).unwrap(), b"text");
    }

    #[test]
    fn does_not_remove_the_socket_of_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&at(&path)).unwrap();
        fs::rename(&path, dir.path().join("moved")).unwrap();
        let _successor = UnixListener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn listens_on_the_port_the_system_chose() {
        let listener = Listener::bind(&"0".parse().unwrap()).unwrap();
        let Address::Tcp { host, port } = listener.address() else {
            panic!("not TCP");
        };
        assert_eq!(host, "127.0.0.1");
        assert_ne!(*port, 0);
        assert!(listener.accept().unwrap().is_none());
        let _client = TcpStream::connect((host.as_str(), *port)).unwrap();
        assert!(matches!(listener.accept().unwrap(), Some(Stream::Tcp(_))));
    }
}
