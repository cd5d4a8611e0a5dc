//! Replies that are late, wrong, or none.

use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;

use super::judge::{gets_on, survives};
use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{Act, Damage, Milestone, Observation};
use crate::check::{Fault, Level, Source, Verdict, demand};

macro_rules! replies {
    ($($name:literal, $level:ident, $source:expr, $request:ident, $act:expr, $judge:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("reply.", $name),
            level: Level::$level,
            source: $source,
            rule: $rule,
            method: Method::Act(|stage| {
                let seen = stage.act(FrontendReq::$request, $act)?;
                let judge: fn(&Stage, &Observation) -> Verdict = $judge;
                judge(stage, &seen)
            }),
        }),*];
    };
}

const LATE: Act = Act::Late(Duration::from_millis(1500));
const WRONG: Source = Source::VhostUser("Communication");
const ACK: Source = Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");
const CONFIG: Source = Source::VhostUser("VHOST_USER_GET_CONFIG");

replies! {
    "late-features", Should, WRONG, GET_FEATURES, LATE, gets_on,
        "the front-end waits for a reply: one to GET_FEATURES may take a while";
    "late-acknowledgement", Should, ACK, SET_FEATURES, LATE, gets_on,
        "the front-end waits for a reply: an acknowledgement may take a while";
    "late-start", Should, ACK, SET_VRING_ENABLE, LATE, gets_on,
        "the front-end waits for a reply: an acknowledgement of SET_VRING_ENABLE may take a while";
    "late-stop", Should, Source::VhostUser("VHOST_USER_GET_VRING_BASE"), GET_VRING_BASE, LATE, waits,
        "the back-end must complete all inflight I/O requests before stopping a vring, which may take a while";
    "missing", Should, WRONG, GET_FEATURES, Act::Silence, survives,
        "a back-end that does not reply does not keep the front-end from ending when it is asked to (SIGTERM)";
    "missing-stop", Should, WRONG, GET_VRING_BASE, Act::Silence, survives,
        "a back-end that does not reply to GET_VRING_BASE does not keep the front-end from ending when it is asked to (SIGTERM)";
    "to-another-request", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::Request), closes,
        "if the front-end receives a wrong reply it will close the connection: a reply to another request";
    "without-reply-flag", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::Flag), closes,
        "the reply flag needs to be sent on each reply; if the front-end receives a wrong one it will close the connection";
    "another-version", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::Version), closes,
        "the version is 1; if the front-end receives a wrong reply it will close the connection";
    "too-long", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::TooLong), closes,
        "if the front-end receives a wrong reply it will close the connection: one with 64 bytes too many";
    "too-short", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::TooShort), closes,
        "if the front-end receives a wrong reply it will close the connection: one with 2 bytes of a number";
    "huge", Must, WRONG, GET_FEATURES, Act::Damaged(Damage::Huge), closes,
        "if the front-end receives a wrong reply it will close the connection: one whose size is 4 GiB";
    "protocol-features-to-another-request", Must, WRONG, GET_PROTOCOL_FEATURES, Act::Damaged(Damage::Request), closes,
        "if the front-end receives a wrong reply it will close the connection: one to GET_PROTOCOL_FEATURES";
    "queue-num-too-short", Must, WRONG, GET_QUEUE_NUM, Act::Damaged(Damage::TooShort), closes,
        "if the front-end receives a wrong reply it will close the connection: one to GET_QUEUE_NUM of 2 bytes";
    "config-too-long", Should, CONFIG, GET_CONFIG, Act::Damaged(Damage::TooLong), refuses,
        "the payload size MUST match the front-end's request: a longer configuration space is not taken";
    "config-too-short", Should, CONFIG, GET_CONFIG, Act::Damaged(Damage::TooShort), refuses,
        "the payload size MUST match the front-end's request: a shorter configuration space is not taken";
    "config-refused", Should, CONFIG, GET_CONFIG, Act::Refuse, survives,
        "zero length of payload indicates an error to the front-end";
    "stop-too-short", Should, WRONG, GET_VRING_BASE, Act::Damaged(Damage::TooShort), survives,
        "a wrong reply to GET_VRING_BASE is survived";
    "inflight-too-short", Should, WRONG, GET_INFLIGHT_FD, Act::Damaged(Damage::TooShort), survives,
        "a wrong reply to GET_INFLIGHT_FD is survived";
    "acknowledgement-to-another-request", Must, WRONG, SET_FEATURES, Act::Damaged(Damage::Request), closes,
        "if the front-end receives a wrong reply it will close the connection: an acknowledgement of another request";
    "features-refused", Should, ACK, SET_FEATURES, Act::Refuse, does_not_start,
        "the payload is non-zero on failure: features that are refused are not used";
    "memory-table-refused", Should, ACK, SET_MEM_TABLE, Act::Refuse, does_not_start,
        "the payload is non-zero on failure: rings are not started in memory that is refused";
    "memory-region-refused", Should, ACK, ADD_MEM_REG, Act::Refuse, does_not_start,
        "the payload is non-zero on failure: rings are not started in memory that is refused";
    "vring-addresses-refused", Should, ACK, SET_VRING_ADDR, Act::Refuse, does_not_start,
        "the payload is non-zero on failure: a ring whose addresses are refused is not started";
    "vring-kick-refused", Should, ACK, SET_VRING_KICK, Act::Refuse, survives,
        "the payload is non-zero on failure: a ring that is not started is survived";
    "vring-enable-refused", Should, ACK, SET_VRING_ENABLE, Act::Refuse, survives,
        "the payload is non-zero on failure: a ring that is not enabled is survived";
    "status-refused", Should, ACK, SET_STATUS, Act::Refuse, survives,
        "the payload is non-zero on failure: a status that is refused is survived";
    "channel-refused", Should, ACK, SET_BACKEND_REQ_FD, Act::Refuse, survives,
        "the back-end must respond non-zero otherwise: a channel that is refused is survived";
}

/// It ends the connection, or itself, before it works with the device: a guest may soon be done
/// with its work, and its frontend ends then.
fn closes(_stage: &Stage, seen: &Observation) -> Verdict {
    let history = &seen.history;
    let has_worked = history.milestone() >= Milestone::Completed;
    let is_closed = history.connections() > 1 || history.is_closed_early() && !has_worked;
    demand(is_closed, || {
        let (_, last) = history.last_request();
        format!("it kept the connection; the last message on it is {last}")
    })
}

/// It does not use what the reply said.
fn refuses(stage: &Stage, seen: &Observation) -> Verdict {
    if seen.history.milestone() < Milestone::Started {
        return survives(stage, seen);
    }
    closes(stage, seen)
}

/// It stays on the connection: when rings are stopped it has come as far as it does.
fn waits(stage: &Stage, seen: &Observation) -> Verdict {
    if stage.baseline().is_closed_early() {
        return Err(Fault::skip(
            "it ends by itself while nothing is wrong too, and rings stop then",
        ));
    }
    let history = &seen.history;
    let has_left = history.connections() > 1 || history.is_closed_early();
    demand(!has_left, || {
        let (_, last) = history.last_request();
        format!("it left before the answer came; its last message is {last}")
    })
}

fn does_not_start(_stage: &Stage, seen: &Observation) -> Verdict {
    // On a connection behind that, everything may be well.
    let is_started = seen.history.is_started_on(1);
    demand(!is_started, || "it started a ring all the same".into())
}
