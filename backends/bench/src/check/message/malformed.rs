//! Messages that make no sense: unknown, cut short, of another version.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::{FrontendMessage, SetFeatures, SetVringAddr, SetVringNum};
use vhost_user_wire::{Header, Payload};

use super::steps::{acknowledged, refused};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::Answer;

const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);
const REPLY_ACK: Source = Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");
const COMMUNICATION: Source = Source::VhostUser("Communication");

pub const CHECKS: &[Check] = &[
    Check {
        name: "message.unknown-is-answered",
        level: Level::Must,
        source: REPLY_ACK,
        rule: "the sender can set need_reply to any command, and the back-end MUST respond: also \
               to a request that it does not know (or it hangs up)",
        needs: &[ACK],
        run: unknown_is_answered,
    },
    Check {
        name: "message.unknown-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: a request that the back-end does \
               not know did not succeed",
        needs: &[ACK],
        run: |bench| refused(bench, UNKNOWN, &[0; 8]),
    },
    Check {
        name: "message.unknown-keeps-the-connection",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "closing the connection should only happen in exceptional circumstances: not for a \
               request of a newer document",
        needs: &[ACK],
        run: unknown_keeps_connection,
    },
    Check {
        name: "message.truncated-is-answered",
        level: Level::Must,
        source: REPLY_ACK,
        rule: "the back-end MUST respond to a message with need_reply: also to SET_FEATURES whose \
               payload has 4 bytes (or it hangs up)",
        needs: &[ACK],
        run: truncated_is_answered,
    },
    Check {
        name: "message.truncated-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: SET_VRING_ADDR of 8 bytes, which \
               has no address in it",
        needs: &[ACK],
        run: truncated_is_refused,
    },
    Check {
        name: "message.empty-is-refused",
        level: Level::Should,
        source: REPLY_ACK,
        rule: "the payload should be set to non-zero on failure: SET_VRING_NUM without a payload",
        needs: &[ACK],
        run: empty_is_refused,
    },
    Check {
        name: "message.wrong-version-is-refused",
        level: Level::Should,
        source: Source::VhostUser("Header"),
        rule: "the lower 2 bits of the flags are the version (currently 0x01): another is refused",
        needs: &[ACK],
        run: wrong_version,
    },
];

/// A request that nobody has defined.
const UNKNOWN: u32 = 0x7ff0;

fn unknown_is_answered(bench: &Bench) -> Verdict {
    answered(bench, UNKNOWN, &[0; 8])
}

fn unknown_keeps_connection(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    session.frontend().try_message(UNKNOWN, &[0; 8], &[])?;
    demand(session.frontend().is_served(), || {
        "the backend hung up".into()
    })
}

fn truncated_is_answered(bench: &Bench) -> Verdict {
    answered(bench, SetFeatures::CODE.into(), &[0; 4])
}

/// A message with need_reply is answered in any way, or the backend hangs up.
fn answered(bench: &Bench, code: u32, payload: &[u8]) -> Verdict {
    let mut session = acknowledged(bench)?;
    let answer = session.frontend().try_message(code, payload, &[])?;
    demand(answer != Answer::Silent, || {
        "there is no answer, and the connection is open".into()
    })
}

fn truncated_is_refused(bench: &Bench) -> Verdict {
    refused(bench, SetVringAddr::CODE.into(), &[0; 8])
}

fn empty_is_refused(bench: &Bench) -> Verdict {
    refused(bench, SetVringNum::CODE.into(), &[])
}

fn wrong_version(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let frontend = session.frontend();
    let payload = VhostUserVringState::new(0, 64).to_bytes();
    let mut header = Header::request(SetVringNum::CODE, payload.len()).with_ack();
    header.flags = header.flags & !3 | 2;
    frontend.send_message(header, &payload, &[])?;
    let answer = frontend.answer()?;
    demand(answer.is_refusal(), || {
        format!("a message of version 2: {answer:?}")
    })
}
