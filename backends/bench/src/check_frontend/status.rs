//! The device's status, and its configuration space.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_user_wire::payload::Config;

use super::types::{FrontendCheck, Method, each};
use crate::backend::History;
use crate::check::{Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "status.known-bits",
        level: Level::Should,
        source: Source::Virtio("2.1 Device Status Field"),
        rule: "status bits are those of the specification, in one byte",
        method: Method::Look(known_bits),
    },
    FrontendCheck {
        name: "status.in-order",
        level: Level::Must,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK are set in this order",
        method: Method::Look(in_order),
    },
    FrontendCheck {
        name: "status.no-bit-cleared",
        level: Level::Must,
        source: Source::Virtio("2.1.1 Driver Requirements: Device Status Field"),
        rule: "the driver MUST NOT clear a device status bit, but by a reset",
        method: Method::Look(not_cleared),
    },
    FrontendCheck {
        name: "status.features-before-features-ok",
        level: Level::Must,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "features are written before the FEATURES_OK status bit is set",
        method: Method::Look(features_first),
    },
    FrontendCheck {
        name: "status.no-features-after-features-ok",
        level: Level::Must,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "the driver MUST NOT accept new feature bits after FEATURES_OK is set",
        method: Method::Look(no_more_features),
    },
    FrontendCheck {
        name: "status.driver-ok-for-rings",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_STATUS"),
        rule: "with STATUS negotiated, the back-end is notified of DRIVER_OK once rings are set up",
        method: Method::Look(driver_ok),
    },
    FrontendCheck {
        name: "config.flags",
        level: Level::Must,
        source: Source::VhostUser("Virtio device config space"),
        rule: "flags are 0, for writable fields, or 1, for live migration",
        method: Method::Look(config_flags),
    },
    FrontendCheck {
        name: "config.size",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_CONFIG"),
        rule: "a part of the configuration space is asked for that has a size, within 4096 bytes",
        method: Method::Look(config_size),
    },
];

const SET: &[FrontendReq] = &[FrontendReq::SET_STATUS];
const ACKNOWLEDGE: u64 = 1;
const DRIVER: u64 = 2;
const DRIVER_OK: u64 = 4;
const FEATURES_OK: u64 = 8;
const NEEDS_RESET: u64 = 64;
const FAILED: u64 = 128;
/// LOG_ALL
const LOG_ALL: u64 = 1 << 26;

fn each_status(history: &History, judge: impl Fn(u64, u64) -> Verdict) -> Verdict {
    each(history, SET, |seen| {
        judge(seen.before.status, seen.body().unwrap_or(0))
    })
}

fn known_bits(history: &History) -> Verdict {
    let known = ACKNOWLEDGE | DRIVER | DRIVER_OK | FEATURES_OK | 16 | 32 | NEEDS_RESET | FAILED;
    each_status(history, |_, status| {
        demand(status & !known == 0, || {
            format!("the status is {status:#x}")
        })
    })
}

fn in_order(history: &History) -> Verdict {
    each_status(history, |_, status| {
        let bits = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
        let is_set = bits.map(|bit| status & bit != 0);
        let is_ordered = is_set.windows(2).all(|pair| pair[0] || !pair[1]);
        demand(is_ordered, || format!("the status is {status:#x}"))
    })
}

fn not_cleared(history: &History) -> Verdict {
    each_status(history, |before, status| {
        let cleared = before & !status & !NEEDS_RESET;
        demand(status == 0 || cleared == 0, || {
            format!("the status is {before:#x}, and then {status:#x}")
        })
    })
}

fn features_first(history: &History) -> Verdict {
    each(history, SET, |seen| {
        let status = seen.body::<u64>().unwrap_or(0);
        demand(
            status & FEATURES_OK == 0 || seen.before.features.is_some(),
            || "FEATURES_OK without SET_FEATURES".into(),
        )
    })
}

fn no_more_features(history: &History) -> Verdict {
    each(history, SET, |_| Ok(()))?;
    each(history, &[FrontendReq::SET_FEATURES], |seen| {
        let Some(accepted) = seen.before.features_ok else {
            return Ok(());
        };
        let more = seen.body::<u64>().unwrap_or(0) & !accepted & !LOG_ALL;
        demand(more == 0, || {
            format!("{more:#x} is accepted after FEATURES_OK")
        })
    })
}

fn driver_ok(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_KICK], |start| {
        if !start.before.has_protocol(Protocol::STATUS) {
            return Ok(());
        }
        let mut told = history.seen().iter().filter(|seen| seen.is_one_of(SET));
        let is_ok = told.any(|seen| seen.body::<u64>().unwrap_or(0) & DRIVER_OK != 0);
        demand(is_ok || history.is_cut_short(), || {
            "a ring is started, and DRIVER_OK is never told".into()
        })
    })
}

const CONFIG: &[FrontendReq] = &[FrontendReq::GET_CONFIG, FrontendReq::SET_CONFIG];

fn config_flags(history: &History) -> Verdict {
    each(history, CONFIG, |seen| {
        let flags = seen.body::<Config>().map_or(0, |it| it.access.flags);
        demand(flags <= 1, || format!("the flags are {flags:#x}"))
    })
}

fn config_size(history: &History) -> Verdict {
    each(history, CONFIG, |seen| {
        let access = seen.body::<Config>().unwrap_or_default().access;
        let (offset, size) = (access.offset, access.size);
        let fits = offset.checked_add(size).is_some_and(|end| end <= 4096);
        demand(size > 0 && fits, || format!("{size} bytes at {offset}"))
    })
}
