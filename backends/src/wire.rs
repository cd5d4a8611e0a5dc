//! Messages on the vhost-user socket: bytes and file descriptors in, bytes out.
//!
//! A message is a 12-byte header (request, flags, payload size; each a `u32` in the machine's own
//! byte order) and a payload; file descriptors travel as `SCM_RIGHTS` with the first byte.
//! Payload types are those of [`vhost::vhost_user::message`].
//!
//! Nothing here knows what a request means. What the peer can get wrong is split in two: a
//! [`WireError`] leaves the byte stream in an unknown state, so the connection must end; a
//! [`PayloadError`] concerns one message only, and the stream goes on.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use thiserror::Error;
use vhost::vhost_user::message::{FrontendReq, VhostUserHeaderFlag};
use vm_memory::ByteValued;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Size of the message header in bytes.
pub const HEADER_SIZE: usize = 12;

/// Largest payload accepted, in bytes: an access to a whole configuration space of 4096 bytes,
/// behind its own header of 12.
pub const MAX_PAYLOAD: usize = 12 + 4096;

/// The kernel's own limit of file descriptors in one message (`SCM_MAX_FD`). Offering room for
/// all of them means that a flood is received, counted and closed, never truncated.
const MAX_FDS: usize = 253;

/// How long the peer may take over the rest of a message that it has begun, or over making room
/// for a reply.
pub const IO_DEADLINE: Duration = Duration::from_secs(10);

/// The only protocol version there is, in the low bits of the flags.
const VERSION: u32 = 1;

/// The connection cannot be used any longer.
#[derive(Debug, Error)]
pub enum WireError {
    /// The socket failed.
    #[error("the frontend's socket failed")]
    Socket(#[source] io::Error),
    /// The peer closed the connection or went silent within a message.
    #[error("the frontend sent {got} of the {want} bytes of a message's {part}")]
    Truncated {
        /// Header or payload.
        part: &'static str,
        /// Bytes received.
        got: usize,
        /// Bytes announced.
        want: usize,
    },
    /// The header's version is not the one this document describes.
    #[error("the frontend speaks protocol version {0}; this backend speaks version 1")]
    Version(u32),
    /// The payload is longer than any defined message.
    #[error("the frontend announced a payload of {size} bytes; at most {MAX_PAYLOAD} are accepted")]
    Oversized {
        /// Announced size in bytes.
        size: usize,
    },
}

/// One message is malformed; the stream is still in step.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PayloadError {
    /// The payload is too short for its type.
    #[error("payload of {got} bytes where at least {want} are needed")]
    Short {
        /// Bytes received.
        got: usize,
        /// Bytes needed.
        want: usize,
    },
    /// The number of attached file descriptors is wrong.
    #[error("{got} file descriptors attached where {want} belong")]
    Fds {
        /// Descriptors received (and closed).
        got: usize,
        /// Descriptors the message takes.
        want: usize,
    },
}

/// One request from the frontend.
#[derive(Debug)]
pub struct Request {
    /// Request number as it stood on the wire; it may be one that nobody has defined.
    pub code: u32,
    /// Header flags.
    pub flags: u32,
    /// Payload, exactly as long as the header said.
    pub payload: Vec<u8>,
    /// Attached file descriptors; closed when the request is dropped.
    pub files: Vec<File>,
}

impl Request {
    /// The request's type, if it is a defined one.
    pub fn kind(&self) -> Option<FrontendReq> {
        FrontendReq::try_from(self.code).ok()
    }

    /// Whether the sender waits for an acknowledgement (meaningful once REPLY_ACK is negotiated).
    pub fn needs_reply(&self) -> bool {
        self.flags & VhostUserHeaderFlag::NEED_REPLY.bits() != 0
    }

    /// Whether the header claims to be a reply, which a frontend has no reason to send here.
    pub fn is_reply(&self) -> bool {
        self.flags & VhostUserHeaderFlag::REPLY.bits() != 0
    }

    /// The payload's first bytes as a `T`. A longer payload is accepted: user-mode-linux sends
    /// SET_MEM_TABLE at its full size whatever its count.
    pub fn body<T: ByteValued + Default>(&self) -> Result<T, PayloadError> {
        read_body(&self.payload)
    }

    /// The attached descriptors, if there are exactly `want`.
    pub fn take_files(&mut self, want: usize) -> Result<Vec<File>, PayloadError> {
        let files = std::mem::take(&mut self.files);
        if files.len() == want {
            Ok(files)
        } else {
            Err(PayloadError::Fds {
                got: files.len(),
                want,
            })
        }
    }

    /// The single attached descriptor.
    pub fn take_file(&mut self) -> Result<File, PayloadError> {
        let mut files = self.take_files(1)?;
        files.pop().ok_or(PayloadError::Fds { got: 0, want: 1 })
    }
}

/// The first bytes of `bytes` as a `T`, whatever their alignment.
pub fn read_body<T: ByteValued + Default>(bytes: &[u8]) -> Result<T, PayloadError> {
    let mut value = T::default();
    let want = size_of::<T>();
    let head = bytes.get(..want).ok_or(PayloadError::Short {
        got: bytes.len(),
        want,
    })?;
    value.as_mut_slice().copy_from_slice(head);
    Ok(value)
}

/// The backend's end of the socket.
#[derive(Debug)]
pub struct Channel {
    stream: UnixStream,
}

impl Channel {
    /// Takes over a connected socket and bounds every later wait on it.
    pub fn new(stream: UnixStream) -> Result<Self, WireError> {
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(IO_DEADLINE)))
            .and_then(|()| stream.set_write_timeout(Some(IO_DEADLINE)))
            .map_err(WireError::Socket)?;
        Ok(Channel { stream })
    }

    /// The socket, to wait on until a message begins.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Receives one request, or `None` if the peer closed the connection between messages.
    ///
    /// Call it when the socket is readable; it blocks up to [`IO_DEADLINE`] for the remainder.
    pub fn receive(&mut self) -> Result<Option<Request>, WireError> {
        let mut header = [0u8; HEADER_SIZE];
        let (got, files) = self.receive_start(&mut header)?;
        if got == 0 {
            return Ok(None);
        }
        self.read_rest(&mut header, got, "header")?;
        let [code, flags, size] = decode_header(&header);
        if flags & VhostUserHeaderFlag::VERSION.bits() != VERSION {
            return Err(WireError::Version(
                flags & VhostUserHeaderFlag::VERSION.bits(),
            ));
        }
        let size = size as usize;
        if size > MAX_PAYLOAD {
            return Err(WireError::Oversized { size });
        }
        let mut payload = vec![0; size];
        self.read_rest(&mut payload, 0, "payload")?;
        Ok(Some(Request {
            code,
            flags,
            payload,
            files,
        }))
    }

    /// Receives up to one header's worth of bytes together with the attached descriptors.
    fn receive_start(
        &mut self,
        header: &mut [u8; HEADER_SIZE],
    ) -> Result<(usize, Vec<File>), WireError> {
        let mut fds: [RawFd; MAX_FDS] = [-1; MAX_FDS];
        loop {
            let mut iovecs = [libc::iovec {
                iov_base: header.as_mut_ptr().cast(),
                iov_len: HEADER_SIZE,
            }];
            // SAFETY: the only iovec covers `header`, which is borrowed mutably for the whole
            // call and takes any bytes.
            let result = unsafe { self.stream.recv_with_fds(&mut iovecs, &mut fds) };
            match result {
                Ok((got, count)) => {
                    let files = fds[..count]
                        .iter()
                        // SAFETY: the kernel has just installed these `count` descriptors for
                        // this process and nothing else knows them.
                        .map(|&fd| unsafe { File::from_raw_fd(fd) })
                        .collect();
                    return Ok((got, files));
                }
                Err(e) if e.errno() == libc::EINTR => continue,
                // The peer is gone without a goodbye: the same as an orderly close.
                Err(e) if e.errno() == libc::ECONNRESET => return Ok((0, Vec::new())),
                Err(e) => return Err(WireError::Socket(e.into())),
            }
        }
    }

    /// Fills `buffer` from position `got` on.
    fn read_rest(
        &mut self,
        buffer: &mut [u8],
        mut got: usize,
        part: &'static str,
    ) -> Result<(), WireError> {
        let want = buffer.len();
        while got < want {
            match self.stream.read(&mut buffer[got..]) {
                Ok(0) => return Err(WireError::Truncated { part, got, want }),
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if is_timeout(&e) => return Err(WireError::Truncated { part, got, want }),
                Err(e) => return Err(WireError::Socket(e)),
            }
        }
        Ok(())
    }

    /// Sends the reply to request `code`.
    pub fn reply(&mut self, code: u32, payload: &[u8]) -> Result<(), WireError> {
        let message = encode_reply(code, payload);
        self.stream.write_all(&message).map_err(WireError::Socket)
    }

    /// The same with a file descriptor, which travels with the first byte.
    pub fn reply_with_file(
        &mut self,
        code: u32,
        payload: &[u8],
        file: &File,
    ) -> Result<(), WireError> {
        let message = encode_reply(code, payload);
        let sent = loop {
            match self.stream.send_with_fd(&message[..], file.as_raw_fd()) {
                Ok(sent) => break sent,
                Err(e) if e.errno() == libc::EINTR => continue,
                Err(e) => return Err(WireError::Socket(e.into())),
            }
        };
        let rest = &message[sent.min(message.len())..];
        self.stream.write_all(rest).map_err(WireError::Socket)
    }
}

fn encode_reply(code: u32, payload: &[u8]) -> Vec<u8> {
    let flags = VERSION | VhostUserHeaderFlag::REPLY.bits();
    let mut message = Vec::with_capacity(HEADER_SIZE + payload.len());
    for word in [code, flags, payload.len() as u32] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(payload);
    message
}

/// The header's three words.
fn decode_header(header: &[u8; HEADER_SIZE]) -> [u32; 3] {
    let mut words = [0u32; 3];
    for (word, bytes) in words.iter_mut().zip(header.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod tests;
