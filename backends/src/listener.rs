//! The listening socket: taken over only when nobody listens on it any more, removed at the end.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use host_io::sockets::{self, BindError, SocketFile};
use thiserror::Error;

/// A socket path could not be taken. The user's doing, or the host's.
#[derive(Debug, Error)]
#[error("cannot listen on socket {path}")]
pub struct ListenError {
    /// The path asked for.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: BindError,
}

/// A bound socket. Dropping it removes the file, if it is still the same one.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    file: SocketFile,
}

impl Listener {
    /// Binds `path`. A socket file that nobody listens on any longer is replaced; one that
    /// answers is left alone.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let bind = || {
            let (socket, file) = sockets::bind(path)?;
            socket.set_nonblocking(true)?;
            Ok(Listener { socket, file })
        };
        bind().map_err(|source| ListenError {
            path: path.to_owned(),
            source,
        })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// The next connection, or `None` if the one that was announced has gone again.
    pub fn accept(&self) -> io::Result<Option<UnixStream>> {
        match self.socket.accept() {
            Ok((stream, _)) => Ok(Some(stream)),
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(e),
            },
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_in_and_the_socket_is_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = Listener::bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        assert!(listener.accept().unwrap().is_none());
        drop(listener);
        assert!(!path.exists());
    }
}
