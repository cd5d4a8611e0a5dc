//! Listening on a path.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Clients that may wait to be accepted: as many as at a listener of the standard library.
const BACKLOG: i32 = 128;

/// Why a path cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("a live process listens there; end it or choose another path")]
    InUse,
    #[error("it exists and is not a socket; remove it or choose another path")]
    NotASocket,
    #[error("it cannot be created; its directory must exist and be writable")]
    Io(#[from] io::Error),
}

/// The file of a bound socket. Dropping it removes the file, if it is still the same.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode: somebody may have put another in its place.
    identity: Option<(u64, u64)>,
}

/// Binds `path`. A socket left behind by a dead process is replaced; one that is
/// served, and a file that is no socket, are not.
pub fn bind(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    remove_stale(path)?;
    Ok((UnixListener::bind(path)?, SocketFile::at(path)))
}

/// The same with a socket that only its owner can connect to.
pub fn bind_private(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
    remove_stale(path)?;
    Ok((listen_private(path)?, SocketFile::at(path)))
}

/// The file that bind(2) makes gets the mode of the socket: at no time can others connect.
fn listen_private(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// The process that has connected to, or listens at, the other end; `None` when that is this one,
/// which may have handed its end to another.
pub fn peer(stream: &UnixStream) -> Option<u32> {
    let pid = socket_peercred(stream).ok()?.pid.as_raw_pid();
    let pid = u32::try_from(pid).ok()?;
    (pid != std::process::id()).then_some(pid)
}

fn remove_stale(path: &Path) -> Result<(), BindError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NotASocket);
    }
    match try_connect(path)? {
        Err(Errno::CONNREFUSED) => Ok(fs::remove_file(path)?),
        // Gone in between.
        Err(Errno::NOENT) => Ok(()),
        // A listener that has no time for one more client, or none for a stream, lives too.
        Ok(()) | Err(Errno::AGAIN | Errno::PROTOTYPE) => Err(BindError::InUse),
        Err(error) => Err(BindError::Io(error.into())),
    }
}

/// The result of a connect that does not block; the standard library's does.
fn try_connect(path: &Path) -> io::Result<Result<(), Errno>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(connect(&socket, &SocketAddrUnix::new(path)?))
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl SocketFile {
    fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
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
    fn a_path_is_taken_from_the_dead_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let living = UnixListener::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse)));
        drop(living);
        assert!(path.exists(), "it is stale");
        let bound = bind(&path).unwrap();
        assert_eq!(bound.1.path(), path);
        drop(bound);
        assert!(!path.exists());
        fs::write(&path, "a file").unwrap();
        assert!(matches!(bind(&path), Err(BindError::NotASocket)));
        assert_eq!(fs::read(&path).unwrap(), b"a file");
    }

    #[test]
    fn a_private_socket_is_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let (listener, _file) = bind_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let _client = UnixStream::connect(&path).unwrap();
        listener.accept().unwrap();
        assert!(matches!(bind_private(&path), Err(BindError::InUse)));
    }

    #[test]
    fn a_listener_that_is_busy_or_speaks_otherwise_is_not_dead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let address = SocketAddrUnix::new(&path).unwrap();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let new = || socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let busy = new();
        rustix::net::bind(&busy, &address).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let mut waiting = vec![new()];
        while connect(waiting.last().unwrap(), &address).is_ok() {
            waiting.push(new());
        }
        assert!(matches!(bind(&path), Err(BindError::InUse)));
        drop(busy);
        fs::remove_file(&path).unwrap();
        let _other = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::InUse)));
        assert!(path.exists());
    }

    #[test]
    fn the_socket_of_a_successor_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let before = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _after = bind(&path).unwrap();
        drop(before);
        assert!(path.exists());
    }

    #[test]
    fn a_directory_that_is_missing_is_an_error_of_the_host_s() {
        let dir = tempfile::tempdir().unwrap();
        let error = bind(&dir.path().join("none").join("s")).unwrap_err();
        assert!(matches!(error, BindError::Io(_)), "{error}");
    }
}
