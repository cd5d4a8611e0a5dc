//! Waiting for a backend that connects to us (SPEC `listen=PATH`), as OVS with
//! its client ports does.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connector::Connector;
use super::error::Problem;

/// A socket that backends connect to; removed with the value. Who connects
/// while there is a backend waits in the kernel's queue.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket file: somebody may have put another in its place.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Takes the path over from a process that is gone, not from one that lives.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if is_socket && is_abandoned(path) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: identity(path),
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

fn is_abandoned(path: &Path) -> bool {
    let connected = super::connect::attempt(path);
    matches!(connected, Err(Problem::Connect { source, .. }) if source.kind() == ErrorKind::ConnectionRefused)
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            let _ = fs::remove_file(&self.path);
        }
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
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        let _backend = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_is_taken_from_the_dead_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("l.sock");
        let living = UnixListener::bind(&path).unwrap();
        let error = Listener::bind(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse);
        drop(living);
        Listener::bind(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        assert!(Listener::bind(&path).is_err());
        assert!(path.exists(), "a file is not removed");
    }
}
