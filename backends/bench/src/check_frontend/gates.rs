//! Messages that need a protocol feature.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use super::types::{FrontendCheck, Method, all};
use crate::backend::History;
use crate::check::{Fault, Level, Source, Verdict, demand};

macro_rules! gates {
    ($($name:literal, $level:ident, $section:literal, [$($request:ident),*], $feature:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("gate.", $name),
            level: Level::$level,
            source: Source::VhostUser($section),
            rule: $rule,
            method: Method::Look(|history| gate(history, &[$(FrontendReq::$request),*], $feature)),
        }),*];
    };
}

gates! {
    "mq", Should, "VHOST_USER_GET_QUEUE_NUM", [GET_QUEUE_NUM], Protocol::MQ,
        "GET_QUEUE_NUM should be sent only when VHOST_USER_PROTOCOL_F_MQ is set in the queried protocol features";
    "config", Must, "VHOST_USER_GET_CONFIG", [GET_CONFIG, SET_CONFIG], Protocol::CONFIG,
        "GET_CONFIG and SET_CONFIG are submitted when VHOST_USER_PROTOCOL_F_CONFIG is negotiated";
    "inflight", Must, "VHOST_USER_GET_INFLIGHT_FD", [GET_INFLIGHT_FD, SET_INFLIGHT_FD], Protocol::INFLIGHT_SHMFD,
        "GET_INFLIGHT_FD and SET_INFLIGHT_FD are submitted when VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD has been negotiated";
    "reset-device", Must, "VHOST_USER_RESET_DEVICE", [RESET_DEVICE], Protocol::RESET_DEVICE,
        "RESET_DEVICE is only valid if the VHOST_USER_PROTOCOL_F_RESET_DEVICE protocol feature is set by the back-end";
    "status", Must, "VHOST_USER_SET_STATUS", [SET_STATUS, GET_STATUS], Protocol::STATUS,
        "SET_STATUS and GET_STATUS are submitted when VHOST_USER_PROTOCOL_F_STATUS has been negotiated";
    "memory-slots", Must, "Memory access", [GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG], Protocol::CONFIGURE_MEM_SLOTS,
        "these messages can only be used if VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS has been successfully negotiated";
    "backend-requests", Should, "VHOST_USER_SET_BACKEND_REQ_FD", [SET_BACKEND_REQ_FD], Protocol::BACKEND_REQ,
        "SET_BACKEND_REQ_FD should be sent only when VHOST_USER_PROTOCOL_F_BACKEND_REQ is present in the protocol features";
    "log", Must, "VHOST_USER_SET_LOG_BASE", [SET_LOG_BASE, SET_LOG_FD], Protocol::LOG_SHMFD,
        "the log memory fd is provided with SET_LOG_BASE when the back-end has VHOST_USER_PROTOCOL_F_LOG_SHMFD";
    "device-state", Must, "VHOST_USER_SET_DEVICE_STATE_FD", [SET_DEVICE_STATE_FD, CHECK_DEVICE_STATE], Protocol::DEVICE_STATE,
        "using these functions requires prior negotiation of VHOST_USER_PROTOCOL_F_DEVICE_STATE";
    "shared-memory", Must, "VHOST_USER_GET_SHMEM_CONFIG", [GET_SHMEM_CONFIG], Protocol::SHMEM,
        "GET_SHMEM_CONFIG can be submitted when VHOST_USER_PROTOCOL_F_SHMEM has been negotiated";
    "rarp", Must, "VHOST_USER_SEND_RARP", [SEND_RARP], Protocol::RARP,
        "SEND_RARP is only legal if VHOST_USER_PROTOCOL_F_RARP is present in GET_PROTOCOL_FEATURES";
    "mtu", Should, "VHOST_USER_NET_SET_MTU", [NET_SET_MTU], Protocol::MTU,
        "NET_SET_MTU should be sent only when VHOST_USER_PROTOCOL_F_NET_MTU is present in GET_PROTOCOL_FEATURES";
    "in-band", Must, "VHOST_USER_VRING_KICK", [VRING_KICK], Protocol::INBAND_NOTIFICATIONS,
        "VRING_KICK may be submitted when VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS has been negotiated";
    "endian", Should, "VHOST_USER_SET_VRING_ENDIAN", [SET_VRING_ENDIAN], Protocol::CROSS_ENDIAN,
        "SET_VRING_ENDIAN should be sent only when VHOST_USER_PROTOCOL_F_CROSS_ENDIAN has been negotiated";
    "postcopy", Must, "VHOST_USER_POSTCOPY_ADVISE", [POSTCOPY_ADVISE, POSTCOPY_LISTEN, POSTCOPY_END], Protocol::PAGEFAULT,
        "postcopy messages are sent only when VHOST_USER_PROTOCOL_F_PAGEFAULT is supported";
    "crypto", Should, "VHOST_USER_CREATE_CRYPTO_SESSION", [CREATE_CRYPTO_SESSION, CLOSE_CRYPTO_SESSION], Protocol::CRYPTO_SESSION,
        "sessions should be created only when VHOST_USER_PROTOCOL_F_CRYPTO_SESSION has been negotiated";
}

/// None of these messages comes without the feature. Where a frontend would have had to be seen
/// without it and never was, it is one that sends none of them.
fn gate(history: &History, requests: &[FrontendReq], feature: Protocol) -> Verdict {
    all(history, |seen| {
        let negotiated = seen.before.has_protocol(feature);
        // GET_QUEUE_NUM goes by what is offered, and may come before SET_PROTOCOL_FEATURES.
        let offered = seen.before.protocol_offered.unwrap_or(0) & feature.bits() != 0;
        let may = negotiated || (feature == Protocol::MQ && offered);
        demand(!seen.is_one_of(requests) || may, || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            let accepted = seen.before.protocol.unwrap_or(0);
            format!("{name} with the protocol features {accepted:#x}")
        })
    })?;
    if history.seen().is_empty() {
        return Err(Fault::skip("it sends nothing"));
    }
    Ok(())
}
