//! Features, and which of them are accepted.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_user_wire::features::{VHOST_USER_F_PROTOCOL_FEATURES, names, protocol_names};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;

use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, Seen};
use crate::check::{Fault, Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "features.asked-before-accepted",
        level: Level::Must,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "feature bits are read, and a subset of them is written: GET_FEATURES comes before \
               SET_FEATURES on each connection",
        method: Method::Look(asked),
    },
    FrontendCheck {
        name: "features.only-offered",
        level: Level::Must,
        source: Source::Virtio("2.2.1 Driver Requirements: Feature Bits"),
        rule: "the driver MUST NOT accept a feature which the device did not offer",
        method: Method::Look(only_offered),
    },
    FrontendCheck {
        name: "features.version-1",
        level: Level::Must,
        source: Source::Virtio("6.1 Driver Requirements: Reserved Feature Bits"),
        rule: "a driver MUST accept VIRTIO_F_VERSION_1 if it is offered",
        method: Method::Look(version_1),
    },
    FrontendCheck {
        name: "features.before-rings",
        level: Level::Must,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "features are written before virtqueues are set up: SET_FEATURES comes before the \
               first SET_VRING_KICK",
        method: Method::Look(before_rings),
    },
    FrontendCheck {
        name: "features.not-changed-while-running",
        level: Level::Should,
        source: Source::Virtio("3.1.1 Driver Requirements: Device Initialization"),
        rule: "the driver MUST NOT accept new feature bits once FEATURES_OK is set: while a ring \
               is started, SET_FEATURES adds none but LOG_ALL",
        method: Method::Look(not_changed),
    },
    FrontendCheck {
        name: "features.protocol-asked-when-offered",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_PROTOCOL_FEATURES"),
        rule: "GET_PROTOCOL_FEATURES and SET_PROTOCOL_FEATURES are only legal if feature bit \
               VHOST_USER_F_PROTOCOL_FEATURES is present in GET_FEATURES",
        method: Method::Look(protocol_legal),
    },
    FrontendCheck {
        name: "features.protocol-asked-before-accepted",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_PROTOCOL_FEATURES"),
        rule: "GET_PROTOCOL_FEATURES comes before SET_PROTOCOL_FEATURES on each connection",
        method: Method::Look(protocol_asked),
    },
    FrontendCheck {
        name: "features.protocol-only-offered",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "any protocol extensions are gated by protocol feature bits: none is accepted that \
               the back-end does not offer",
        method: Method::Look(protocol_only_offered),
    },
    FrontendCheck {
        name: "features.protocol-before-rings",
        level: Level::Should,
        source: Source::VhostUser("Protocol features"),
        rule: "protocol features are negotiated before memory and rings are set up, which they \
               change",
        method: Method::Look(protocol_before_rings),
    },
];

const SET: &[FrontendReq] = &[FrontendReq::SET_FEATURES];
const SET_PROTOCOL: &[FrontendReq] = &[FrontendReq::SET_PROTOCOL_FEATURES];
/// VHOST_F_LOG_ALL
const LOG_ALL: u64 = 1 << 26;

fn asked(history: &History) -> Verdict {
    each(history, SET, |seen| {
        demand(seen.before.offered.is_some(), || {
            format!(
                "SET_FEATURES without GET_FEATURES on connection {}",
                seen.connection
            )
        })
    })
}

fn bits(seen: &Seen) -> u64 {
    seen.body().unwrap_or(0)
}

fn only_offered(history: &History) -> Verdict {
    each(history, SET, |seen| {
        let offered = seen.before.offered.unwrap_or(0);
        let more = bits(seen) & !offered;
        demand(more == 0, || {
            let names = names(more, &[]).join(", ");
            format!("SET_FEATURES with {names} ({more:#x}), and {offered:#x} is offered")
        })
    })
}

/// Of the features with which the first ring is started: a frontend may set others before.
fn version_1(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_KICK], |seen| {
        if seen.before.offered.unwrap_or(0) & 1 << VIRTIO_F_VERSION_1 == 0 {
            return Ok(());
        }
        demand(seen.before.has(VIRTIO_F_VERSION_1), || {
            let features = seen.before.features;
            format!("a ring is started with features {features:x?}")
        })
    })
}

fn before_rings(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_KICK], |seen| {
        demand(seen.before.features.is_some(), || {
            "SET_VRING_KICK without SET_FEATURES".into()
        })
    })
}

fn not_changed(history: &History) -> Verdict {
    each(history, SET, |seen| {
        let more = bits(seen) & !seen.before.features.unwrap_or(0) & !LOG_ALL;
        demand(more == 0 || !seen.before.is_running(), || {
            format!("SET_FEATURES adds {more:#x} while a ring is started")
        })
    })
}

fn protocol_legal(history: &History) -> Verdict {
    let requests = [
        FrontendReq::GET_PROTOCOL_FEATURES,
        FrontendReq::SET_PROTOCOL_FEATURES,
    ];
    each(history, &requests, |seen| {
        let offered = seen.before.offered.unwrap_or(0);
        demand(offered & 1 << VHOST_USER_F_PROTOCOL_FEATURES != 0, || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            format!("{name}, and the features offered are {offered:#x}")
        })
    })
}

fn protocol_asked(history: &History) -> Verdict {
    each(history, SET_PROTOCOL, |seen| {
        demand(seen.before.protocol_offered.is_some(), || {
            "SET_PROTOCOL_FEATURES without GET_PROTOCOL_FEATURES".into()
        })
    })
}

fn protocol_only_offered(history: &History) -> Verdict {
    each(history, SET_PROTOCOL, |seen| {
        let offered = seen.before.protocol_offered.unwrap_or(0);
        let more = bits(seen) & !offered;
        demand(more == 0, || {
            let names = protocol_names(more).join(", ");
            format!("SET_PROTOCOL_FEATURES with {names}, and {offered:#x} is offered")
        })
    })
}

fn protocol_before_rings(history: &History) -> Verdict {
    each(history, SET_PROTOCOL, |seen| {
        let is_first = !seen.before.has_memory && seen.before.rings.is_empty();
        demand(is_first, || {
            "SET_PROTOCOL_FEATURES behind messages about memory or rings".into()
        })
    })
}

/// Whether a frontend accepted one of these protocol features, or all of them.
pub fn accepted(history: &History, feature: Protocol) -> Result<bool, Fault> {
    let mut messages = history.seen().iter();
    let Some(seen) = messages.find(|seen| seen.is_one_of(SET_PROTOCOL)) else {
        return Err(Fault::skip("it sends no SET_PROTOCOL_FEATURES"));
    };
    Ok(bits(seen) & feature.bits() != 0)
}
