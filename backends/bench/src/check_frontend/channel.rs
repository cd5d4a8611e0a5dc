//! The backend's own requests.

use super::judge::{gets_on, survives};
use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{Observation, Question};
use crate::check::{Fault, Level, Source, Verdict, demand};
use vhost::vhost_user::message::{BackendReq, VhostUserProtocolFeatures as Protocol};

macro_rules! questions {
    ($($name:literal, $level:ident, $section:literal, $question:ident, $judge:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("channel.", $name),
            level: Level::$level,
            source: Source::VhostUser($section),
            rule: $rule,
            method: Method::Act(|stage| {
                let seen = stage.ask(Question::$question)?;
                let judge: fn(&Stage, &Observation) -> Verdict = $judge;
                judge(stage, &seen)
            }),
        }),*];
    };
}

questions! {
    "config-change", Must, "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG", ConfigChange, config_change,
        "if REPLY_ACK is negotiated and the back-end sets need_reply, the front-end must respond with zero when the operation is completed";
    "no-answer-unasked", Must, "VHOST_USER_PROTOCOL_F_REPLY_ACK", ConfigChangeUnasked, no_answer,
        "a request without need_reply is not answered";
    "many-config-changes", Should, "VHOST_USER_BACKEND_CONFIG_CHANGE_MSG", ConfigChanges, gets_on,
        "a thousand requests in a row are survived";
    "unknown-request", Should, "Back-end communication", Unknown, refused,
        "an unknown request is answered with non-zero, or the channel is closed";
    "map-without-feature", Must, "VHOST_USER_BACKEND_SHMEM_MAP", MapUnnegotiated, refused,
        "SHMEM_MAP can be submitted when VHOST_USER_PROTOCOL_F_SHMEM has been negotiated; without it is refused";
    "call-without-feature", Should, "VHOST_USER_BACKEND_VRING_CALL", Call, refused,
        "VRING_CALL may be submitted when INBAND_NOTIFICATIONS has been negotiated; without it is refused";
    "too-long", Should, "Back-end communication", TooLong, survives,
        "a request with a payload that it does not have is survived";
    "huge", Should, "Back-end communication", Huge, survives,
        "a request that says that 4 GiB follow is survived";
    "cut", Should, "Back-end communication", Cut, survives,
        "a channel that ends within a header is survived";
    "closed", Should, "Back-end communication", Close, survives,
        "a channel that the back-end closes is survived";
}

/// What it accepted last.
fn has(seen: &Observation, feature: Protocol) -> bool {
    let last = seen.history.seen().last();
    last.is_some_and(|seen| seen.before.has_protocol(feature))
}

fn needs_acks(seen: &Observation) -> Verdict {
    if has(seen, Protocol::REPLY_ACK) {
        return Ok(());
    }
    Err(Fault::skip("it does not negotiate REPLY_ACK"))
}

fn config_change(_stage: &Stage, seen: &Observation) -> Verdict {
    needs_acks(seen)?;
    if !has(seen, Protocol::CONFIG) {
        return Err(Fault::skip("it does not negotiate CONFIG"));
    }
    let answers = seen.history.answers();
    let wanted = BackendReq::CONFIG_CHANGE_MSG as u32;
    demand(answers.len() == 1, || {
        format!("CONFIG_CHANGE_MSG got {} answers", answers.len())
    })?;
    let answer = answers[0];
    let is_reply = answer.flags & vhost_user_wire::REPLY != 0;
    let is_good = answer.request == wanted && is_reply && answer.number == Some(0);
    demand(is_good, || format!("the answer is {answer:?}"))
}

fn no_answer(_stage: &Stage, seen: &Observation) -> Verdict {
    demand(seen.history.answers().is_empty(), || {
        format!("it answers {:?}", seen.history.answers())
    })
}

fn refused(stage: &Stage, seen: &Observation) -> Verdict {
    needs_acks(seen)?;
    survives(stage, seen)?;
    let answers = seen.history.answers();
    let is_refused = answers.iter().any(|it| it.number.is_some_and(|it| it != 0));
    demand(is_refused || seen.history.has_channel_closed(), || {
        format!("the answers are {answers:?}, and the channel is open")
    })
}
