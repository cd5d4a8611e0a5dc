//! Why a recording cannot be replayed to a backend.

use crate::driver::DriverError;
use crate::target::TargetError;

#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("it does not offer {0}, which the recorded driver used")]
    NotOffered(String),
    #[error("it serves one connection, and the recording has another; have it listen ({{socket}})")]
    OneConnection,
    #[error("the recording uses queues before features are negotiated")]
    NoSession,
    #[error("there is no room in the ring of queue {0}, where the recorded driver had some")]
    Full(u8),
    #[error("the driver's memory is too small")]
    MemoryFull,
}
