//! Requests of a backend to the frontend, on a socket of its own (vhost-user
//! document, "Back-end communication").

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use libc::{EFD_CLOEXEC, EFD_NONBLOCK};
use vhost::vhost_user::message::{BackendReq, VhostUserMMap};
use vhost_user_wire::{Connection, Header, Message, Payload, PayloadError, WireError, name};
use vmm_sys_util::eventfd::EventFd;

use super::shared_memory::{MapError, SharedMemory};
use crate::virtio::rate_limit::RateLimit;

/// The number of requests that are served before something else has its turn.
const BATCH: usize = 32;

/// Log lines about requests that are refused: this many in this time.
const LOG: RateLimit = RateLimit::new(20, Duration::from_secs(10));

/// Answers to a request (vhost-user document, "REPLY_ACK").
const DONE: u64 = 0;
const REFUSED: u64 = 1;

/// The requests of the backend that somebody has to act upon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The configuration space has other contents.
    pub config_changed: bool,
}

/// Changes of the configuration space that the backend wants acknowledged: that waits until the
/// driver can read the new one.
#[derive(Debug, Default)]
struct Unanswered {
    /// Nobody has been told of them yet.
    new: u32,
    told: u32,
}

/// The backend cannot be talked to on this socket any more.
#[derive(Debug, thiserror::Error)]
pub enum RequestsError {
    #[error("the backend sent a reply (code {code}) where only requests belong")]
    Reply { code: u32 },
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl RequestsError {
    /// Whether the backend has closed it.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Wire(error) if error.is_closed())
    }
}

/// The frontend's end of the socket.
pub struct BackendRequests {
    connection: Connection,
    /// Where the backend may have files mapped.
    memory: Option<Arc<SharedMemory>>,
    /// The requests, and how they ended, that nobody has been told of yet.
    asked: Asked,
    ended: Option<RequestsError>,
    unanswered: Unanswered,
    /// Readable while there are any.
    news: EventFd,
    log: RateLimit,
}

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it is none that is served here")]
    Unknown,
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("the device has no shared memory")]
    NoSharedMemory,
    #[error(transparent)]
    Map(#[from] MapError),
}

impl BackendRequests {
    /// The second value is the backend's end.
    pub fn new() -> io::Result<(Self, UnixStream)> {
        let (stream, theirs) = UnixStream::pair()?;
        let ours = Self {
            connection: Connection::to_backend(stream),
            memory: None,
            asked: Asked::default(),
            ended: None,
            unanswered: Unanswered::default(),
            news: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
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
            None => {
                self.unanswered.told += std::mem::take(&mut self.unanswered.new);
                Ok(std::mem::take(&mut self.asked))
            }
        }
    }

    /// The driver can read the configuration space as it was when [`serve`](Self::serve) last
    /// told of a change, or as it is since. A backend that waits for that gets its answer.
    pub fn config_published(&mut self) {
        let told = std::mem::take(&mut self.unanswered.told);
        self.acknowledge_changes(told);
    }

    /// Whether a backend waits for [`config_published`](Self::config_published).
    pub fn is_awaited(&self) -> bool {
        self.is_open() && self.unanswered.new + self.unanswered.told > 0
    }

    /// Answers a backend that waits for [`config_published`](Self::config_published): it may not
    /// be able to do anything else before.
    pub fn wait_no_longer(&mut self) {
        let Unanswered { new, told } = std::mem::take(&mut self.unanswered);
        self.acknowledge_changes(new + told);
    }

    fn acknowledge_changes(&mut self, count: u32) {
        for _ in 0..count {
            if self.is_open()
                && let Err(error) = self.answer(BackendReq::CONFIG_CHANGE_MSG.into(), DONE)
            {
                self.ended = Some(error);
                // As in `serve_meanwhile`.
                let _ = self.news.write(1);
            }
        }
    }

    /// Serves requests during a wait for something else: the backend may need its
    /// answers before it can do that. [`serve`](Self::serve) later reports the
    /// consequences.
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
            let Some(request) = self.connection.try_receive()? else {
                break;
            };
            let header = request.header;
            if header.is_reply() {
                let code = header.request;
                return Err(RequestsError::Reply { code });
            }
            let answer = match carry_out(&request, self.memory.as_deref(), &mut self.asked) {
                Ok(()) => DONE,
                Err(refusal) => {
                    self.log_refusal(header.request, &refusal);
                    REFUSED
                }
            };
            if !header.needs_reply() {
                continue;
            }
            if header.request == u32::from(BackendReq::CONFIG_CHANGE_MSG) {
                self.unanswered.new += 1;
                continue;
            }
            // Answers come in the order of the requests.
            self.wait_no_longer();
            self.answer(header.request, answer)?;
        }
        Ok(())
    }

    /// A backend that does not read its answers does not get more of them.
    fn answer(&self, request: u32, answer: u64) -> Result<(), RequestsError> {
        let payload = answer.to_bytes();
        let header = Header::request(request, 0).reply(payload.len());
        Ok(self.connection.send_now(header, &payload)?)
    }

    fn log_refusal(&mut self, code: u32, refusal: &Refusal) {
        if let Some(suppressed) = self.log.admit() {
            let request = name::backend(code);
            let error: &dyn std::error::Error = refusal;
            tracing::warn!(%request, suppressed, error, "a backend's request is refused");
        }
    }
}

fn carry_out(
    request: &Message,
    memory: Option<&SharedMemory>,
    asked: &mut Asked,
) -> Result<(), Refusal> {
    let memory = memory.ok_or(Refusal::NoSharedMemory);
    match BackendReq::try_from(request.header.request) {
        Ok(BackendReq::CONFIG_CHANGE_MSG) => asked.config_changed = true,
        Ok(BackendReq::SHMEM_MAP) => memory?.map(&range(request)?, request.files.first())?,
        Ok(BackendReq::SHMEM_UNMAP) => memory?.unmap(&range(request)?)?,
        _ => return Err(Refusal::Unknown),
    }
    Ok(())
}

/// The payload of SHMEM_MAP and SHMEM_UNMAP.
fn range(request: &Message) -> Result<VhostUserMMap, PayloadError> {
    match request.payload.len() {
        got if got > VhostUserMMap::MAX_SIZE => Err(PayloadError::Size { got }),
        _ => request.body(),
    }
}

/// Readable when there is something to serve.
impl AsRawFd for BackendRequests {
    fn as_raw_fd(&self) -> RawFd {
        self.connection.as_raw_fd()
    }
}

impl AsFd for BackendRequests {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

#[cfg(test)]
#[path = "requests_test.rs"]
mod tests;
