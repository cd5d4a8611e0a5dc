//! The listening socket: bound, if nobody listens there any more, and removed at the end; or made by
//! somebody else, such as systemd, who keeps it.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use host_io::sockets::{self, BindError, SocketFile};
use rustix::net::SocketType;
use rustix::net::sockopt::{socket_acceptconn, socket_type};
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

/// A listening socket. Dropping it removes the file that it has made, if it is still the same one.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    /// Where this process has bound it.
    file: Option<SocketFile>,
}

impl Listener {
    /// Binds `path`. A socket file that nobody listens on any longer is replaced; one that
    /// answers is left alone.
    pub fn bind(path: &Path) -> Result<Self, ListenError> {
        let bind = || {
            let (socket, file) = sockets::bind(path)?;
            socket.set_nonblocking(true)?;
            let file = Some(file);
            Ok(Listener { socket, file })
        };
        bind().map_err(|source| ListenError {
            path: path.to_owned(),
            source,
        })
    }

    /// Takes over a Unix stream socket that listens already. Its file stays at the end.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let socket = UnixListener::from(fd);
        // Fails with a socket that is not a Unix one.
        socket.local_addr()?;
        if socket_type(&socket)? != SocketType::STREAM || !socket_acceptconn(&socket)? {
            return Err(io::Error::other("it does not listen"));
        }
        socket.set_nonblocking(true)?;
        Ok(Listener { socket, file: None })
    }

    /// The file that is removed at the end.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    /// Its file, for somebody who ends before it does.
    pub(crate) fn take_file(&mut self) -> Option<SocketFile> {
        self.file.take()
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

/// Where it listens.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.path().display()),
            None => f.write_str("inherited"),
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

    #[test]
    fn an_inherited_listener_is_served_and_its_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let made = UnixListener::bind(&path).unwrap();
        let listener = Listener::from_fd(made.into()).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        assert!(listener.accept().unwrap().is_some());
        drop(listener);
        assert!(path.exists());
        assert!(Listener::from_fd(client.into()).is_err());
        let pipe = std::io::pipe().unwrap().0;
        assert!(Listener::from_fd(pipe.into()).is_err());
    }
}
