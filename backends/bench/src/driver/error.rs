//! What can go wrong between a driver and its backend.

use std::error::Error;
use std::io;
use std::time::Duration;

use vhost_user_wire::name::Name;
use vhost_user_wire::{PayloadError, WireError};

/// Each text completes a sentence that begins with what was being done.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    #[error("the connection to the backend failed")]
    Wire(#[from] WireError),
    #[error("the reply to {name} is malformed")]
    Payload {
        name: Name,
        #[source]
        source: PayloadError,
    },
    #[error("there is no connection to the backend")]
    Connect(#[source] Box<dyn Error + Send + Sync>),
    #[error("{name} was answered by a message that is no reply to it: {got}")]
    Unexpected { name: Name, got: String },
    #[error("{name} was refused with {code}")]
    Refused { name: Name, code: u64 },
    #[error("the backend does not offer {0}")]
    NotOffered(&'static str),
    #[error("queue {queue}: no buffer came back within {waited:?}")]
    NotUsed { queue: usize, waited: Duration },
    #[error("queue {queue}: no used buffer notification came within {waited:?}")]
    NotNotified { queue: usize, waited: Duration },
    #[error("queue {queue}: {what}")]
    Ring { queue: usize, what: String },
    #[error("the driver's memory is too small for {0} bytes more")]
    MemoryFull(u64),
    #[error("the host refused")]
    Host(#[from] io::Error),
}

impl DriverError {
    /// Whether the backend has hung up.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Wire(error) if error.is_closed())
    }
}
