//! The serial console on a Unix socket: one client at a time, others wait.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Input, is_transient};

/// The client of the moment, shared with the output half.
type Client = Arc<Mutex<Option<UnixStream>>>;

/// Listener and input half. The socket file is removed on drop.
pub struct SocketEnd {
    listener: UnixListener,
    path: PathBuf,
    client: Client,
    /// The input half's own descriptor of the client.
    reader: Option<UnixStream>,
}

/// Output half: lost while nobody is connected or the client does not read.
pub struct SocketOutput(Client);

impl SocketEnd {
    /// Listens on `path`. A file left behind by a dead process is replaced, one
    /// that is served is not.
    pub fn bind(path: &Path) -> Result<(Self, SocketOutput), Error> {
        let failed = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        if UnixStream::connect(path).is_ok() {
            return Err(Error::InUse(path.to_owned()));
        }
        remove_socket(path).map_err(failed)?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let client = Client::default();
        let end = Self {
            listener,
            path: path.to_owned(),
            client: client.clone(),
            reader: None,
        };
        Ok((end, SocketOutput(client)))
    }

    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }

    pub fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            return;
        };
        let reader = stream
            .set_nonblocking(true)
            .and_then(|()| stream.try_clone());
        match reader {
            Ok(reader) => {
                self.reader = Some(reader);
                *lock(&self.client) = Some(stream);
            }
            Err(error) => tracing::warn!("serial console: cannot serve a client: {error}"),
        }
    }

    pub fn read(&mut self, mut buffer: Vec<u8>) -> Input {
        let Some(reader) = &mut self.reader else {
            return Input::Nothing;
        };
        match reader.read(&mut buffer) {
            Ok(len @ 1..) => {
                buffer.truncate(len);
                return Input::Bytes(buffer);
            }
            Err(error) if is_transient(&error) => {}
            Ok(0) | Err(_) => {
                self.reader = None;
                *lock(&self.client) = None;
            }
        }
        Input::Nothing
    }
}

impl Drop for SocketEnd {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Write for SocketOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(client) = lock(&self.0).as_mut() {
            // The input half notices a client that is gone.
            let _ = client.write(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn lock(client: &Client) -> MutexGuard<'_, Option<UnixStream>> {
    client.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes a socket file; anything else at `path` is left alone and in the way.
fn remove_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_one_client_after_another_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let (mut end, mut output) = SocketEnd::bind(&path).unwrap();
        output.write_all(b"lost").unwrap();
        for round in 0..2 {
            let mut client = UnixStream::connect(&path).unwrap();
            end.accept();
            output.write_all(&[b'a' + round]).unwrap();
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [b'a' + round]);
            client.write_all(b"in").unwrap();
            assert_eq!(end.read(vec![0; 64]), Input::Bytes(b"in".to_vec()));
            drop(client);
            assert_eq!(end.read(vec![0; 64]), Input::Nothing);
            assert!(end.input().is_none());
        }
        drop(end);
        assert!(!path.exists());
    }

    #[test]
    fn does_not_steal_a_served_socket_but_replaces_a_stale_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let listener = UnixListener::bind(&path).unwrap();
        assert!(matches!(SocketEnd::bind(&path), Err(Error::InUse(_))));
        drop(listener);
        assert!(path.exists());
        SocketEnd::bind(&path).unwrap();
    }
}
