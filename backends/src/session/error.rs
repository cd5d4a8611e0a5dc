//! Errors of a request, and the answer that the frontend gets.

use std::io;

use thiserror::Error;
use vhost::vhost_user::message::{
    FrontendReq, VhostUserInflight, VhostUserLog, VhostUserProtocolFeatures as Protocol,
};
use vhost_user_wire::name::Name;
use vhost_user_wire::payload::{ConfigReply, NO_FILE};
use vhost_user_wire::{Payload, PayloadError, WireError};

use crate::device::StartError;
use crate::inflight::InflightError;
use crate::memory::MemoryError;
use crate::page_log::LogError;
use crate::vring::RingError;
use crate::worker::WorkerError;

/// One request was refused. The session continues, unless a worker is lost.
#[derive(Debug, Error)]
pub enum RequestError {
    /// A number that no version of the document defines.
    #[error("unknown request {0}")]
    Unknown(u32),
    /// A defined request that this backend does not serve, and has not offered to.
    #[error("request is not supported by this backend")]
    Unsupported,
    /// A frontend has no reply to send on this socket.
    #[error("a reply was received where only requests belong")]
    Reply,
    /// Malformed.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// A ring that does not exist.
    #[error("ring {index} does not exist; this device has {count}")]
    NoSuchRing {
        /// Ring asked for.
        index: u32,
        /// Rings there are.
        count: usize,
    },
    /// Set up wrongly.
    #[error("ring {index} cannot be set up")]
    Ring {
        /// Which ring.
        index: usize,
        /// Why.
        #[source]
        source: RingError,
    },
    /// Everything is there, but not usable.
    #[error("ring {index} cannot be started")]
    Start {
        /// Which ring.
        index: usize,
        /// Why.
        #[source]
        source: StartError,
    },
    /// The record of requests in flight.
    #[error(transparent)]
    Inflight(#[from] InflightError),
    /// The log of written pages.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A kick descriptor that cannot be waited on, or cannot be kept.
    #[error("ring {index}: its file descriptor cannot be used")]
    RingFd {
        /// Which ring.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SET_VRING_KICK without a descriptor.
    #[error("ring {0}: polling mode (no kick descriptor) is not supported; send an eventfd")]
    PollingMode(usize),
    /// A state changes while a ring runs.
    #[error("ring {0} runs: the device's state is saved and loaded while all are stopped")]
    Running(usize),
    /// The memory table.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Feature bits that were not offered.
    #[error("features that were not offered: {}", .refused.join(", "))]
    Features {
        /// Their names.
        refused: Vec<String>,
    },
    /// A descriptor that should be a Unix stream socket.
    #[error("the descriptor is not a connected Unix socket")]
    NotASocket(#[source] io::Error),
    /// The device refused or failed.
    #[error("the device refused the request")]
    Backend(#[source] io::Error),
    /// A worker does not answer.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why a session ended other than by the frontend's leaving.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The byte stream is unusable.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The document defines no way to answer this request with an error, and the frontend waits.
    #[error("a {request} that must be answered cannot be; the connection is closed")]
    Unanswerable {
        /// The request's name.
        request: Name,
        /// What was wrong with it.
        #[source]
        source: RequestError,
    },
    /// The device is no longer usable: the process should end.
    #[error(transparent)]
    Device(#[from] WorkerError),
}

/// The answer to a refused request.
#[derive(Debug, PartialEq, Eq)]
pub enum ErrorAnswer {
    /// A nonzero acknowledgement if the frontend asked for one, else nothing.
    Ack,
    /// This payload says "no" in the request's own terms.
    Payload(Vec<u8>),
    /// There is no such payload.
    HangUp,
}

impl ErrorAnswer {
    fn payload(payload: &impl Payload) -> Self {
        Self::Payload(payload.to_bytes())
    }
}

/// How the document lets a backend say no to `request`, with `protocol` agreed on.
pub fn error_answer(request: Option<FrontendReq>, protocol: Protocol) -> ErrorAnswer {
    match request {
        // "uses zero length of payload to indicate an error".
        Some(FrontendReq::GET_CONFIG) => ErrorAnswer::payload(&ConfigReply(Vec::new())),
        // A region of size 0 means that there is none.
        Some(FrontendReq::GET_INFLIGHT_FD) => ErrorAnswer::payload(&VhostUserInflight::default()),
        // Bits 0-7 nonzero: error; bit 8: no descriptor attached.
        Some(FrontendReq::SET_DEVICE_STATE_FD | FrontendReq::CHECK_DEVICE_STATE) => {
            ErrorAnswer::payload(&(NO_FILE | 1))
        }
        // Answered whether the frontend asks for it or not, but only with this feature: no log of
        // any size is in use.
        Some(FrontendReq::SET_LOG_BASE) if protocol.contains(Protocol::LOG_SHMFD) => {
            ErrorAnswer::payload(&VhostUserLog::default())
        }
        Some(
            FrontendReq::GET_FEATURES
            | FrontendReq::GET_PROTOCOL_FEATURES
            | FrontendReq::GET_QUEUE_NUM
            | FrontendReq::GET_VRING_BASE
            | FrontendReq::GET_MAX_MEM_SLOTS
            | FrontendReq::GET_STATUS
            | FrontendReq::GET_SHARED_OBJECT
            | FrontendReq::GET_SHMEM_CONFIG,
        ) => ErrorAnswer::HangUp,
        _ => ErrorAnswer::Ack,
    }
}
