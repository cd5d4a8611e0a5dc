//! Errors of a connection, and of a single message.

use std::io;
use std::time::Duration;

use crate::progress::Progress;

/// The stream of bytes cannot be used any longer: the connection must end.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the peer closed the connection ({0})")]
    Closed(Progress),
    #[error("the peer did not send a message within {waited:?} ({progress})")]
    Late {
        waited: Duration,
        progress: Progress,
    },
    #[error("the peer did not take a message within {waited:?}")]
    Stuck { waited: Duration },
    #[error("the peer speaks protocol version {0}; known is version 1")]
    Version(u32),
    #[error("the peer announced a payload of {size} bytes; at most {most} are accepted")]
    Oversized { size: usize, most: usize },
    #[error(
        "the peer sent more than {most} file descriptors with a message, or more than this process may open (RLIMIT_NOFILE)"
    )]
    Descriptors { most: usize },
    #[error("the socket failed")]
    Socket(#[from] io::Error),
}

impl WireError {
    /// Whether the peer has closed the connection, be it in the middle of a message.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    /// Whether the peer has closed the connection between two messages.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Closed(progress) if !progress.has_begun())
    }
}

/// One message is malformed; the stream of bytes is still in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("payload of {got} bytes where at least {want} are needed")]
    Short { got: usize, want: usize },
    #[error("payload of {got} bytes, which the message cannot have")]
    Size { got: usize },
    /// Those that came are closed.
    #[error("{got} file descriptors attached where {want} belong")]
    Fds { got: usize, want: usize },
}
