//! REPLY_ACK: who is answered, when, and with what.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::{
    FrontendMessage, GetFeatures, GetVringBase, SetOwner, SetVringEnable, SetVringNum,
};
use vhost_user_wire::{Header, Payload};

use super::bench::Bench;
use super::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::{Answer, QUIET, Session};

const ACK: Need = Need::Protocol(Protocol::REPLY_ACK);
const SECTION: Source = Source::VhostUser("VHOST_USER_PROTOCOL_F_REPLY_ACK");

pub const CHECKS: &[Check] = &[
    Check {
        name: "ack.success-is-zero",
        level: Level::Must,
        source: SECTION,
        rule: "the need_reply flag indicates that the back-end MUST respond; the payload is zero \
               on success: each message of a set-up",
        needs: &[ACK],
        run: success_is_zero,
    },
    Check {
        name: "ack.owner",
        level: Level::Must,
        source: SECTION,
        rule: "the sender can set the need_reply flag to any command: also to SET_OWNER",
        needs: &[ACK],
        run: owner,
    },
    Check {
        name: "ack.only-when-asked",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "most of the requests don't require replies: one without need_reply, whose reply \
               payload is N/A, has none",
        needs: &[ACK],
        run: only_when_asked,
    },
    Check {
        name: "ack.one-reply-to-a-request",
        level: Level::Must,
        source: SECTION,
        rule: "for the message types that already solicit a reply, the need_reply bit being set \
               brings no behavioural change: GET_FEATURES has one reply",
        needs: &[ACK],
        run: one_reply,
    },
    Check {
        name: "ack.get-vring-base-with-flag",
        level: Level::Must,
        source: SECTION,
        rule: "for the message types that already solicit a reply, the need_reply bit being set \
               brings no behavioural change: GET_VRING_BASE has one reply, a vring state",
        needs: &[ACK],
        run: vring_base_with_flag,
    },
    Check {
        name: "ack.in-order",
        level: Level::Must,
        source: SECTION,
        rule: "messages that are sent without waiting are answered one by one, in their order",
        needs: &[ACK],
        run: in_order,
    },
    Check {
        name: "ack.bad-ring-is-answered",
        level: Level::Must,
        source: SECTION,
        rule: "the back-end MUST respond with a payload indicating success or failure: also to a \
               message about a queue that it does not have (or it hangs up)",
        needs: &[ACK],
        run: bad_ring_answered,
    },
    Check {
        name: "ack.bad-ring-is-refused",
        level: Level::Should,
        source: SECTION,
        rule: "the payload should be set to non-zero on failure: SET_VRING_NUM for a queue that \
               the back-end does not have",
        needs: &[ACK],
        run: bad_ring_refused,
    },
    Check {
        name: "ack.zero-size-is-refused",
        level: Level::Should,
        source: SECTION,
        rule: "the payload should be set to non-zero on failure: a ring of no descriptors",
        needs: &[ACK],
        run: |bench| size_is_refused(bench, 0),
    },
    Check {
        name: "ack.huge-size-is-refused",
        level: Level::Should,
        source: SECTION,
        rule: "the payload should be set to non-zero on failure: a ring of 65536 descriptors, \
               where the maximum Queue Size value is 32768 (virtio 1.4, 2.7)",
        needs: &[ACK],
        run: |bench| size_is_refused(bench, 65536),
    },
    Check {
        name: "ack.error-keeps-the-connection",
        level: Level::Should,
        source: Source::VhostUser("Communication"),
        rule: "closing the connection should only happen in exceptional circumstances: not for a \
               message that can be refused",
        needs: &[ACK],
        run: error_keeps_connection,
    },
];

fn acknowledged(bench: &Bench) -> Result<Session, super::types::Fault> {
    let setup = bench.setup().require_protocol(Protocol::REPLY_ACK);
    Ok(setup.prepare(bench.connect()?)?)
}

fn success_is_zero(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::REPLY_ACK);
    bench.start(&setup)?;
    Ok(())
}

fn owner(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::REPLY_ACK);
    let setup = setup.leave_out(crate::driver::Step::Owner);
    let mut session = setup.prepare(bench.connect()?)?;
    session.frontend().execute(&SetOwner)?;
    Ok(())
}

fn only_when_asked(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let frontend = session.frontend();
    frontend.send(&SetVringNum(VhostUserVringState::new(0, 64)))?;
    frontend.send(&SetVringEnable(VhostUserVringState::new(0, 0)))?;
    // The next message has to be the reply to this.
    frontend.request(&GetFeatures)?;
    Ok(())
}

/// Exactly one reply comes to a message with need_reply.
fn exactly_one(session: &mut Session, code: u32, payload: &[u8], size: usize) -> Verdict {
    let frontend = session.frontend();
    let header = Header::request(code, payload.len()).with_ack();
    frontend.send_message(header, payload, &[])?;
    let reply = frontend.reply_to(code)?;
    demand(reply.payload.len() == size, || {
        format!(
            "the reply has {} bytes in place of {size}",
            reply.payload.len()
        )
    })?;
    match frontend.receive_within(QUIET) {
        Ok(_) => demand(false, || "a second reply came".into()),
        Err(_) => Ok(frontend.request(&GetFeatures).map(drop)?),
    }
}

fn one_reply(bench: &Bench) -> Verdict {
    exactly_one(&mut acknowledged(bench)?, GetFeatures::CODE.into(), &[], 8)
}

fn vring_base_with_flag(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup().require_protocol(Protocol::REPLY_ACK))?;
    let payload = VhostUserVringState::new(0, 0).to_bytes();
    exactly_one(&mut session, GetVringBase::CODE.into(), &payload, 8)
}

fn in_order(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let frontend = session.frontend();
    let state = VhostUserVringState::new(0, 64).to_bytes();
    let messages: [(u32, &[u8]); 4] = [
        (SetVringNum::CODE.into(), &state),
        (GetFeatures::CODE.into(), &[]),
        (SetVringNum::CODE.into(), &state),
        (GetFeatures::CODE.into(), &[]),
    ];
    for (code, payload) in messages {
        let header = Header::request(code, payload.len()).with_ack();
        frontend.send_message(header, payload, &[])?;
    }
    for (code, _) in messages {
        frontend.reply_to(code)?;
    }
    Ok(())
}

/// A ring that no backend has: there can be 256 for messages with files, so far more is none.
const NO_RING: u32 = 0x7000;

fn ask_about_no_ring(bench: &Bench) -> Result<Answer, super::types::Fault> {
    let mut session = acknowledged(bench)?;
    let payload = VhostUserVringState::new(NO_RING, 64).to_bytes();
    let code = SetVringNum::CODE.into();
    Ok(session.frontend().try_message(code, &payload, &[])?)
}

fn bad_ring_answered(bench: &Bench) -> Verdict {
    let answer = ask_about_no_ring(bench)?;
    demand(answer != Answer::Silent, || {
        "there is no answer, and the connection is open".into()
    })
}

fn bad_ring_refused(bench: &Bench) -> Verdict {
    let answer = ask_about_no_ring(bench)?;
    demand(answer.is_refusal(), || {
        format!("SET_VRING_NUM for queue {NO_RING}: {answer:?}")
    })
}

fn size_is_refused(bench: &Bench, size: u32) -> Verdict {
    let mut session = acknowledged(bench)?;
    let payload = VhostUserVringState::new(0, size).to_bytes();
    let code = SetVringNum::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[])?;
    demand(answer.is_refusal(), || {
        format!("SET_VRING_NUM with {size}: {answer:?}")
    })
}

fn error_keeps_connection(bench: &Bench) -> Verdict {
    let mut session = acknowledged(bench)?;
    let payload = VhostUserVringState::new(NO_RING, 64).to_bytes();
    let code = SetVringNum::CODE.into();
    session.frontend().try_message(code, &payload, &[])?;
    demand(session.frontend().is_served(), || {
        "the backend hung up".into()
    })
}
