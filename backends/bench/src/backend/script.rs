//! What the backend does wrong, once.

use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;

use super::channel::Question;
use super::damage::Damage;
use super::ring::RingFault;

/// What becomes of a message instead of the right answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    HangUp,
    /// Some bytes of the answer's header come, and no more.
    HangUpWithin,
    /// The answer comes so much later.
    Late(Duration),
    /// The answer says that it was not done.
    Refuse,
    /// No answer comes.
    Silence,
    Damaged(Damage),
}

/// By default nothing is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Script {
    pub message: Option<(FrontendReq, Act)>,
    pub ring: Option<RingFault>,
    /// What is asked on the backend's channel, once a ring is started.
    pub question: Option<Question>,
}

impl Script {
    /// Does something to the first message of a kind.
    pub fn at(request: FrontendReq, act: Act) -> Self {
        Self {
            message: Some((request, act)),
            ..Self::default()
        }
    }

    pub fn ring(fault: RingFault) -> Self {
        Self {
            ring: Some(fault),
            ..Self::default()
        }
    }

    pub fn ask(question: Question) -> Self {
        Self {
            question: Some(question),
            ..Self::default()
        }
    }
}
