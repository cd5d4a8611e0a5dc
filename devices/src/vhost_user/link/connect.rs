//! Connecting to a backend that may still be starting up.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::connector::Connector;
use crate::vhost_user::error::Problem;

/// Connects to the socket that a backend listens on.
pub struct Dial(pub PathBuf);

impl Connector for Dial {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        attempt(&self.0)
    }
}

/// Connects to the socket at `path` if somebody listens there now.
pub fn attempt(path: &Path) -> Result<UnixStream, Problem> {
    let (address, len) = socket_address(path)?;
    let waited = Duration::ZERO;
    try_connect(&address, len).map_err(|source| Problem::Connect { waited, source })
}

fn socket_address(path: &Path) -> Result<(libc::sockaddr_un, libc::socklen_t), Problem> {
    // SAFETY: all-zeros is a valid sockaddr_un, which holds integers only.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let bytes = path.as_os_str().as_bytes();
    // The kernel wants a terminating NUL.
    let max = address.sun_path.len() - 1;
    if bytes.len() > max {
        let len = bytes.len();
        return Err(Problem::PathTooLong { len, max });
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let len = std::mem::offset_of!(libc::sockaddr_un, sun_path) + bytes.len() + 1;
    Ok((address, len as libc::socklen_t))
}

/// The standard library's connect blocks while the listener's backlog is full;
/// this one does not. The stream it returns is in blocking mode.
fn try_connect(address: &libc::sockaddr_un, len: libc::socklen_t) -> io::Result<UnixStream> {
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` is a new descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: `address` is valid for `len` bytes, which is at most its size.
    let result = unsafe { libc::connect(fd.as_raw_fd(), std::ptr::from_ref(address).cast(), len) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;
    use std::time::Instant;

    use super::super::connector::wait;
    use super::*;

    fn connect(path: &Path, deadline: Duration) -> Result<UnixStream, Problem> {
        wait(&mut Dial(path.to_owned()), deadline)
    }

    #[test]
    fn connects_to_a_listener_that_comes_late() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("late.sock");
        thread::scope(|scope| {
            let client = scope.spawn(|| connect(&path, Duration::from_secs(30)));
            let listener = UnixListener::bind(&path).unwrap();
            listener.accept().unwrap();
            client.join().unwrap().unwrap();
        });
    }

    #[test]
    fn gives_up_at_the_deadline_and_says_what_it_saw() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("absent.sock");
        let waited = Duration::from_millis(20);
        let start = Instant::now();
        let error = connect(&path, waited).unwrap_err();
        assert!(start.elapsed() >= waited);
        assert!(
            matches!(&error, Problem::Connect { source, .. } if source.kind() == io::ErrorKind::NotFound),
            "{error:?}"
        );
    }

    #[test]
    fn a_full_backlog_ends_at_the_deadline_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let mut connections = Vec::new();
        let error = loop {
            match connect(&path, Duration::from_millis(1)) {
                Ok(stream) => connections.push(stream),
                Err(error) => break error,
            }
            assert!(connections.len() < 100_000, "the backlog never fills");
        };
        assert!(
            matches!(&error, Problem::Connect { source, .. } if source.kind() == io::ErrorKind::WouldBlock),
            "{error:?}"
        );
    }

    #[test]
    fn a_file_that_is_no_socket_fails_like_an_abandoned_socket() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = connect(file.path(), Duration::ZERO).unwrap_err();
        assert!(
            matches!(&error, Problem::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused),
            "{error:?}"
        );
    }

    #[test]
    fn a_path_that_is_too_long_is_named_as_such() {
        let path = format!("/{}", "x".repeat(108));
        let error = connect(Path::new(&path), Duration::ZERO).unwrap_err();
        assert!(
            matches!(error, Problem::PathTooLong { len: 109, max: 107 }),
            "{error:?}"
        );
    }
}
