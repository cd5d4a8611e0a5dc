//! What a backend asks of the frontend, on a socket of its own (vhost-user
//! document, "Back-end communication").

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vhost::vhost_user::message::BackendReq;

use super::channel::{HEADER_SIZE, Header, NEED_REPLY, REPLY, VERSION, VERSION_MASK};

/// The longest payload that a request can have, in bytes. The protocol's own
/// are much shorter.
const MAX_PAYLOAD: usize = 4096;

/// As many are served before something else has its turn.
const BATCH: usize = 32;

/// Answers to a request (vhost-user document, "REPLY_ACK").
const DONE: u64 = 0;
const REFUSED: u64 = 1;

/// What the backend asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The configuration space has other contents.
    pub config_changed: bool,
}

/// The backend cannot be talked to on this socket any more.
#[derive(Debug, thiserror::Error)]
pub enum RequestsError {
    #[error("the backend closed it")]
    Closed,
    #[error(
        "the backend sent something that is no request: code {code}, flags {flags:#x}, {size} bytes"
    )]
    Malformed { code: u32, flags: u32, size: u32 },
    #[error("cannot read requests or answer them")]
    Io(#[from] io::Error),
}

/// The frontend's end of the socket.
#[derive(Debug)]
pub struct BackendRequests {
    stream: UnixStream,
    /// What has come of the next request.
    received: Vec<u8>,
}

impl BackendRequests {
    /// The second value is the backend's end.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let received = Vec::new();
        Ok((Self { stream, received }, theirs))
    }

    /// Serves the requests that have come, a bounded number at once. Never
    /// blocks. After an error the socket is of no more use; all else is.
    pub fn serve(&mut self) -> Result<Asked, RequestsError> {
        let mut asked = Asked::default();
        for _ in 0..BATCH {
            let Some(header) = self.receive()? else {
                break;
            };
            // A known request has no payload that matters and no descriptor;
            // what came along nevertheless is closed by the kernel.
            let config_changed = u32::from(BackendReq::CONFIG_CHANGE_MSG);
            let answer = if header.request == config_changed {
                asked.config_changed = true;
                DONE
            } else {
                tracing::debug!(
                    request = header.request,
                    "a backend asked for what is not there"
                );
                REFUSED
            };
            if header.flags & NEED_REPLY != 0 {
                self.answer(header.request, answer)?;
            }
        }
        Ok(asked)
    }

    /// The header of the next request, when all of it has come.
    fn receive(&mut self) -> Result<Option<Header>, RequestsError> {
        if !self.fill(HEADER_SIZE)? {
            return Ok(None);
        }
        let Some(header) = self.received.first_chunk() else {
            return Ok(None);
        };
        let header = Header::from_bytes(*header);
        let size = header.size as usize;
        if header.flags & VERSION_MASK != VERSION || header.flags & REPLY != 0 || size > MAX_PAYLOAD
        {
            return Err(RequestsError::Malformed {
                code: header.request,
                flags: header.flags,
                size: header.size,
            });
        }
        if !self.fill(HEADER_SIZE + size)? {
            return Ok(None);
        }
        self.received.clear();
        Ok(Some(header))
    }

    /// Reads until `len` bytes of the request are there; `false` when they have
    /// not come yet.
    fn fill(&mut self, len: usize) -> Result<bool, RequestsError> {
        while self.received.len() < len {
            let mut buffer = [0; MAX_PAYLOAD];
            let room = buffer.len().min(len - self.received.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => return Err(RequestsError::Closed),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// A backend that does not read its answers does not get more of them: a
    /// full socket is an error.
    fn answer(&mut self, request: u32, value: u64) -> io::Result<()> {
        let header = Header {
            request,
            flags: VERSION | REPLY,
            size: size_of::<u64>() as u32,
        };
        let bytes = [&header.to_bytes()[..], &value.to_ne_bytes()].concat();
        self.stream.write_all(&bytes)
    }
}

/// Readable when there is something to serve.
impl AsRawFd for BackendRequests {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
#[path = "requests_test.rs"]
mod tests;
