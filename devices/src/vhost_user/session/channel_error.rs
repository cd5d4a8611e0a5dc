//! Errors of an exchange with a backend, as users read them.

use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::{Progress, WireError, name};

use crate::virtio::status::Status;

/// An exchange with the backend failed. `message` is the message that was being exchanged.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error(
        "the backend did not answer {} within {waited:?} ({} of {} bytes came)",
        name::frontend(*.message), .progress.received, .progress.expected
    )]
    Late {
        message: FrontendReq,
        waited: Duration,
        progress: Progress,
    },
    #[error("the backend did not take {} within {waited:?}", name::frontend(*.message))]
    Stuck {
        message: FrontendReq,
        waited: Duration,
    },
    #[error(
        "the backend closed the connection instead of taking {}; its own log may say why",
        name::frontend(*.message)
    )]
    ClosedBefore { message: FrontendReq },
    #[error(
        "the backend closed the connection instead of answering {} ({} of {} bytes came); its own log may say why",
        name::frontend(*.message), .progress.received, .progress.expected
    )]
    Closed {
        message: FrontendReq,
        progress: Progress,
    },
    #[error("cannot exchange {} with the backend", name::frontend(*.message))]
    Wire {
        message: FrontendReq,
        source: WireError,
    },
    #[error(
        "the backend answered {} with request {found}, flags {flags:#x}: that is no reply to it",
        name::frontend(*.message)
    )]
    NotTheReply {
        message: FrontendReq,
        found: u32,
        flags: u32,
    },
    #[error(
        "the backend answered {} with a payload of {found} bytes, which it cannot have",
        name::frontend(*.message)
    )]
    ReplySize { message: FrontendReq, found: usize },
    #[error(
        "the backend refused {} (it answered {code}){}",
        name::frontend(*.message), hint(*.message)
    )]
    Refused { message: FrontendReq, code: u64 },
    #[error("the backend left {missing} out of its status ({found:#x}){}", status_hint(*.missing))]
    Status { missing: Status, found: u64 },
}

/// Advice to the user about a refusal.
fn hint(message: FrontendReq) -> &'static str {
    match message {
        FrontendReq::SET_VRING_NUM => "; its queues may be smaller: try another queue-size=",
        FrontendReq::SET_MEM_TABLE => "; it may be unable to map guest RAM",
        _ => "",
    }
}

/// Advice to the user about a status.
fn status_hint(missing: Status) -> &'static str {
    if missing == Status::FEATURES_OK {
        ": it does not work with the features that the driver took; features= keeps some from the driver"
    } else {
        ""
    }
}

impl ChannelError {
    /// For an error while `message` was being exchanged.
    pub fn during(message: FrontendReq, error: WireError) -> Self {
        match error {
            WireError::Closed(progress) => Self::Closed { message, progress },
            WireError::Late { waited, progress } => Self::Late {
                message,
                waited,
                progress,
            },
            WireError::Stuck { waited } => Self::Stuck { message, waited },
            source => Self::Wire { message, source },
        }
    }

    /// Whether the two sides are still in step.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Status { .. })
    }

    /// Whether the backend ended the connection. After any other error it may
    /// still be at work.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed { .. } | Self::ClosedBefore { .. })
    }
}
