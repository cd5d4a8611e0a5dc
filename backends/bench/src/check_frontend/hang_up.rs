//! A backend that goes away.

use vhost::vhost_user::message::FrontendReq;

use super::judge::survives;
use super::types::{FrontendCheck, Method};
use crate::backend::Act;
use crate::check::{Level, Source};

macro_rules! hang_ups {
    ($($name:literal, $request:ident, $act:expr, $when:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("hang-up.", $name),
            level: Level::Should,
            source: Source::VhostUser("Communication"),
            rule: concat!("the back-end may close the connection: the front-end survives that ", $when),
            method: Method::Act(|stage| {
                let seen = stage.act(FrontendReq::$request, $act)?;
                survives(stage, &seen)
            }),
        }),*];
    };
}

hang_ups! {
    "at-features", GET_FEATURES, Act::HangUp, "at GET_FEATURES";
    "at-set-features", SET_FEATURES, Act::HangUp, "at SET_FEATURES";
    "at-protocol-features", GET_PROTOCOL_FEATURES, Act::HangUp, "at GET_PROTOCOL_FEATURES";
    "at-set-protocol-features", SET_PROTOCOL_FEATURES, Act::HangUp, "at SET_PROTOCOL_FEATURES";
    "at-owner", SET_OWNER, Act::HangUp, "at SET_OWNER";
    "at-queue-num", GET_QUEUE_NUM, Act::HangUp, "at GET_QUEUE_NUM";
    "at-config", GET_CONFIG, Act::HangUp, "at GET_CONFIG";
    "at-memory-slots", GET_MAX_MEM_SLOTS, Act::HangUp, "at GET_MAX_MEM_SLOTS";
    "at-backend-channel", SET_BACKEND_REQ_FD, Act::HangUp, "at SET_BACKEND_REQ_FD";
    "at-inflight", GET_INFLIGHT_FD, Act::HangUp, "at GET_INFLIGHT_FD";
    "at-set-inflight", SET_INFLIGHT_FD, Act::HangUp, "at SET_INFLIGHT_FD";
    "at-memory-table", SET_MEM_TABLE, Act::HangUp, "at SET_MEM_TABLE";
    "at-memory-region", ADD_MEM_REG, Act::HangUp, "at ADD_MEM_REG";
    "at-vring-num", SET_VRING_NUM, Act::HangUp, "at SET_VRING_NUM";
    "at-vring-base", SET_VRING_BASE, Act::HangUp, "at SET_VRING_BASE";
    "at-vring-addresses", SET_VRING_ADDR, Act::HangUp, "at SET_VRING_ADDR";
    "at-vring-call", SET_VRING_CALL, Act::HangUp, "at SET_VRING_CALL";
    "at-vring-kick", SET_VRING_KICK, Act::HangUp, "at SET_VRING_KICK";
    "at-vring-enable", SET_VRING_ENABLE, Act::HangUp, "at SET_VRING_ENABLE";
    "at-status", SET_STATUS, Act::HangUp, "at SET_STATUS";
    "at-get-status", GET_STATUS, Act::HangUp, "at GET_STATUS";
    "at-stop", GET_VRING_BASE, Act::HangUp, "at GET_VRING_BASE";
    "within-features", GET_FEATURES, Act::HangUpWithin, "within the reply to GET_FEATURES";
    "within-config", GET_CONFIG, Act::HangUpWithin, "within the reply to GET_CONFIG";
    "within-stop", GET_VRING_BASE, Act::HangUpWithin, "within the reply to GET_VRING_BASE";
}
