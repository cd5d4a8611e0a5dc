//! The serial console on a Unix socket: one client at a time, others wait.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use host_io::sockets::{self, SocketFile};

use super::Error;

/// Listener and client. The socket file is removed on drop.
pub struct SocketEnd {
    listener: UnixListener,
    client: Option<UnixStream>,
    _file: SocketFile,
}

impl SocketEnd {
    /// Listens on `path`.
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        let (listener, file) = sockets::bind(path).map_err(failed)?;
        let nonblocking = listener.set_nonblocking(true);
        nonblocking.map_err(|error| failed(error.into()))?;
        Ok(Self {
            listener,
            client: None,
            _file: file,
        })
    }

    /// The client of the moment. It does not block.
    pub fn client(&self) -> Option<BorrowedFd<'_>> {
        self.client.as_ref().map(AsFd::as_fd)
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes the next client; whether there is one.
    pub fn accept(&mut self) -> bool {
        let Ok((stream, _)) = self.listener.accept() else {
            return false;
        };
        match stream.set_nonblocking(true) {
            Ok(()) => self.client = Some(stream),
            Err(error) => tracing::warn!("serial console: cannot serve a client: {error}"),
        }
        self.client.is_some()
    }

    pub fn disconnect(&mut self) {
        self.client = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::{Console, Input, Target};
    use super::*;

    #[test]
    fn serves_one_client_after_another_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let (mut console, mut output) = Console::open(&Target::Unix(path.clone())).unwrap();
        output.write_all(b"lost").unwrap();
        for round in 0..2 {
            let mut client = UnixStream::connect(&path).unwrap();
            console.accept();
            output.write_all(&[b'a' + round]).unwrap();
            console.flush();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [b'a' + round]);
            client.write_all(b"in").unwrap();
            assert_eq!(console.read(64), Input::Bytes(b"in".to_vec()));
            output.write_all(b"too late").unwrap();
            drop(client);
            assert_eq!(console.read(64), Input::Nothing);
            assert!(console.input().is_none());
        }
        drop(console);
        assert!(!path.exists());
    }
}
