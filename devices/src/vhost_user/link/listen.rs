//! Waiting for a backend that connects to us (SPEC `listen=PATH`), as OVS with
//! its client ports does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use host_io::sockets::{self, BindError, SocketFile};

use super::connector::Connector;
use crate::vhost_user::error::Problem;

/// A socket that backends connect to; removed with the value. A backend that
/// connects while there is another waits in the kernel's queue.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    _file: SocketFile,
}

impl Listener {
    /// Takes the path over from a process that is gone, not from one that lives.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let (listener, file) = sockets::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            _file: file,
        })
    }

    /// Takes the connection of a backend that is there already.
    fn accept(&self) -> io::Result<UnixStream> {
        let (stream, _) = self.listener.accept()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

impl Connector for Listener {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        let waited = Duration::ZERO;
        self.accept()
            .map_err(|source| Problem::Accept { waited, source })
    }

    fn arrivals(&self) -> Option<BorrowedFd<'_>> {
        Some(self.listener.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_who_is_there_and_does_not_wait_for_who_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.sock");
        let listener = Listener::bind(&path).unwrap();
        let error = listener.accept().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let _backend = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert!(!path.exists());
    }
}
