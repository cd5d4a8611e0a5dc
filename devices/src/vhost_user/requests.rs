//! What a backend asks of the frontend, on a socket of its own (vhost-user
//! document, "Back-end communication").

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use libc::{EFD_CLOEXEC, EFD_NONBLOCK};
use vhost::vhost_user::message::{BackendReq, VhostUserMMap};
use vm_memory::ByteValued;
use vmm_sys_util::eventfd::EventFd;

use super::channel::{HEADER_SIZE, Header, NEED_REPLY, REPLY, VERSION, VERSION_MASK};
use super::files;
use super::shared_memory::{MapError, SharedMemory};
use crate::virtio::rate_limit::RateLimit;

/// The longest payload that a request can have, in bytes. The protocol's own
/// are much shorter.
const MAX_PAYLOAD: usize = 4096;

/// As many are served before something else has its turn.
const BATCH: usize = 32;

/// Log lines about requests that are refused: this many in this time.
const LOG: RateLimit = RateLimit::new(20, Duration::from_secs(10));

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
pub struct BackendRequests {
    stream: UnixStream,
    /// Where the backend may have files mapped.
    memory: Option<Arc<SharedMemory>>,
    /// What was asked for, and how it ended, as long as nobody knows of it.
    asked: Asked,
    ended: Option<RequestsError>,
    /// Readable while there is something of that.
    news: EventFd,
    /// What has come of the next request.
    received: Vec<u8>,
    /// The file that came with it.
    file: Option<File>,
    log: RateLimit,
}

/// A request that has come as a whole.
struct Request {
    header: Header,
    payload: Vec<u8>,
    file: Option<File>,
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it is none that is served here")]
    Unknown,
    #[error("its payload has {found} bytes, not {}", size_of::<VhostUserMMap>())]
    Size { found: usize },
    #[error("the device has no shared memory")]
    NoSharedMemory,
    #[error(transparent)]
    Map(#[from] MapError),
}

impl BackendRequests {
    /// The second value is the backend's end.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (stream, theirs) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let ours = Self {
            stream,
            memory: None,
            asked: Asked::default(),
            ended: None,
            news: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
            received: Vec::new(),
            file: None,
            log: LOG,
        };
        Ok((ours, theirs))
    }

    /// Has the backend's mappings made there.
    pub fn give_shared_memory(&mut self, memory: Option<Arc<SharedMemory>>) {
        self.memory = memory;
    }

    /// Readable when [`serve`](Self::serve) has something to tell, though no request
    /// has come since.
    pub fn news(&self) -> &EventFd {
        &self.news
    }

    /// Serves the requests that have come, a bounded number at once, and tells what was
    /// asked for since the last call. Never blocks. After an error the socket is of no
    /// more use; all else is.
    pub fn serve(&mut self) -> Result<Asked, RequestsError> {
        // An error means that there is none.
        let _ = self.news.read();
        self.serve_batch();
        match self.ended.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut self.asked)),
        }
    }

    /// Serves requests while something else is waited for, which the backend may be able
    /// to do only when it has its answers. What follows from them is left to
    /// [`serve`](Self::serve).
    pub fn serve_meanwhile(&mut self) {
        self.serve_batch();
        if self.ended.is_some() || self.asked != Asked::default() {
            // An error means that the counter is full: the sign is there.
            let _ = self.news.write(1);
        }
    }

    /// Whether requests may still come.
    pub fn is_open(&self) -> bool {
        self.ended.is_none()
    }

    fn serve_batch(&mut self) {
        if self.is_open() {
            self.ended = self.try_serve_batch().err();
        }
    }

    fn try_serve_batch(&mut self) -> Result<(), RequestsError> {
        for _ in 0..BATCH {
            let Some(request) = self.receive()? else {
                break;
            };
            let answer = match carry_out(&request, self.memory.as_deref(), &mut self.asked) {
                Ok(()) => DONE,
                Err(refusal) => {
                    self.log_refusal(&request, &refusal);
                    REFUSED
                }
            };
            if request.header.flags & NEED_REPLY != 0 {
                self.answer(request.header.request, answer)?;
            }
        }
        Ok(())
    }

    fn log_refusal(&mut self, request: &Request, refusal: &Refusal) {
        if let Some(suppressed) = self.log.admit() {
            let code = request.header.request;
            let request = BackendReq::try_from(code).ok();
            let error: &dyn std::error::Error = refusal;
            tracing::warn!(
                ?request,
                code,
                suppressed,
                error,
                "a backend's request is refused"
            );
        }
    }

    /// The next request, when all of it has come.
    fn receive(&mut self) -> Result<Option<Request>, RequestsError> {
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
        let payload = self.received.split_off(HEADER_SIZE);
        self.received.clear();
        Ok(Some(Request {
            header,
            payload,
            file: self.file.take(),
        }))
    }

    /// Reads until `len` bytes of the request are there; `false` when they have
    /// not come yet.
    fn fill(&mut self, len: usize) -> Result<bool, RequestsError> {
        while self.received.len() < len {
            let mut buffer = [0; MAX_PAYLOAD];
            let room = buffer.len().min(len - self.received.len());
            match self.read(&mut buffer[..room]) {
                Ok(0) => return Err(RequestsError::Closed),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads, and keeps the first file that comes with a request.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, file) = files::receive(&self.stream, buffer)?;
        self.file = self.file.take().or(file);
        Ok(count)
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

fn carry_out(
    request: &Request,
    memory: Option<&SharedMemory>,
    asked: &mut Asked,
) -> Result<(), Refusal> {
    let memory = memory.ok_or(Refusal::NoSharedMemory);
    match BackendReq::try_from(request.header.request) {
        Ok(BackendReq::CONFIG_CHANGE_MSG) => asked.config_changed = true,
        Ok(BackendReq::SHMEM_MAP) => memory?.map(&range(request)?, request.file.as_ref())?,
        Ok(BackendReq::SHMEM_UNMAP) => memory?.unmap(&range(request)?)?,
        _ => return Err(Refusal::Unknown),
    }
    Ok(())
}

/// The payload of SHMEM_MAP and SHMEM_UNMAP.
fn range(request: &Request) -> Result<VhostUserMMap, Refusal> {
    let mut range = VhostUserMMap::default();
    let bytes = range.as_mut_slice();
    let found = request.payload.len();
    if found != bytes.len() {
        return Err(Refusal::Size { found });
    }
    bytes.copy_from_slice(&request.payload);
    Ok(range)
}

/// Readable when there is something to serve.
impl AsRawFd for BackendRequests {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

impl AsFd for BackendRequests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
#[path = "requests_test.rs"]
mod tests;
