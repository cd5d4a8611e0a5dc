//! What comes before what.

use vhost::vhost_user::message::{FrontendReq, VhostUserVringAddr};
use vhost_user_wire::payload::VringFile;

use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, RingState, Seen};
use crate::check::{Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "order.owner-once",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_OWNER"),
        rule: "SET_OWNER is issued when a new connection is established: once",
        method: Method::Look(owner_once),
    },
    FrontendCheck {
        name: "order.owner-first",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_OWNER"),
        rule: "SET_OWNER can be used on the back-end as a \"session start\" flag: it comes before \
               memory and rings",
        method: Method::Look(owner_first),
    },
    FrontendCheck {
        name: "order.no-reset-owner",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_RESET_OWNER"),
        rule: "RESET_OWNER is deprecated and no longer used",
        method: Method::Look(no_reset_owner),
    },
    FrontendCheck {
        name: "order.memory-before-addresses",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_MEM_TABLE"),
        rule: "the memory map regions are set so that the back-end can translate the vring \
               addresses: before SET_VRING_ADDR",
        method: Method::Look(memory_first),
    },
    FrontendCheck {
        name: "order.size-before-start",
        level: Level::Must,
        source: Source::VhostUser("Ring states"),
        rule: "SET_VRING_KICK starts a ring: SET_VRING_NUM has come before it",
        method: Method::Look(size_first),
    },
    FrontendCheck {
        name: "order.addresses-before-start",
        level: Level::Must,
        source: Source::VhostUser("Ring states"),
        rule: "SET_VRING_KICK starts a ring: SET_VRING_ADDR has come before it",
        method: Method::Look(addresses_first),
    },
    FrontendCheck {
        name: "order.base-before-start",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_BASE"),
        rule: "SET_VRING_KICK starts a ring: SET_VRING_BASE has come before it",
        method: Method::Look(base_first),
    },
    FrontendCheck {
        name: "order.addresses-before-enable",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_ENABLE"),
        rule: "a ring that is enabled before it is started has its size and addresses",
        method: Method::Look(enabled_last),
    },
    FrontendCheck {
        name: "order.started-rings-keep-their-place",
        level: Level::Should,
        source: Source::VhostUser("Ring states"),
        rule: "a started ring is stopped (GET_VRING_BASE) before it gets another size, base or \
               other addresses",
        method: Method::Look(keeps_place),
    },
    FrontendCheck {
        name: "order.no-second-start",
        level: Level::Should,
        source: Source::VhostUser("Ring states"),
        rule: "a ring that is started is not started again with another kick descriptor before \
               it is stopped",
        method: Method::Look(no_second_start),
    },
];

const START: &[FrontendReq] = &[FrontendReq::SET_VRING_KICK];

fn owner_once(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_OWNER], |seen| {
        demand(!seen.before.has_owner, || {
            format!("SET_OWNER twice on connection {}", seen.connection)
        })
    })
}

fn owner_first(history: &History) -> Verdict {
    let requests = [
        FrontendReq::SET_MEM_TABLE,
        FrontendReq::ADD_MEM_REG,
        FrontendReq::SET_VRING_NUM,
        FrontendReq::SET_VRING_ADDR,
        FrontendReq::SET_VRING_KICK,
    ];
    each(history, &requests, |seen| {
        demand(seen.before.has_owner, || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            format!("{name} without SET_OWNER")
        })
    })
}

fn no_reset_owner(history: &History) -> Verdict {
    demand(!history.has(FrontendReq::RESET_OWNER), || {
        "RESET_OWNER".into()
    })
}

fn memory_first(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ADDR], |seen| {
        demand(!seen.before.regions.is_empty(), || {
            "SET_VRING_ADDR, and there is no memory".into()
        })
    })
}

/// The ring that a SET_VRING_KICK starts.
fn ring(seen: &Seen) -> (u8, RingState) {
    let index = seen.body::<VringFile>().map_or(0, |file| file.index);
    let ring = seen.before.rings.get(&index.into()).cloned();
    (index, ring.unwrap_or_default())
}

fn starts_with(history: &History, what: &str, has: impl Fn(&RingState) -> bool) -> Verdict {
    each(history, START, |seen| {
        let (index, ring) = ring(seen);
        demand(has(&ring), || {
            format!("SET_VRING_KICK of ring {index} without {what}")
        })
    })
}

fn size_first(history: &History) -> Verdict {
    starts_with(history, "SET_VRING_NUM", |ring| ring.size.is_some())
}

fn addresses_first(history: &History) -> Verdict {
    starts_with(history, "SET_VRING_ADDR", |ring| ring.places.is_some())
}

fn base_first(history: &History) -> Verdict {
    starts_with(history, "SET_VRING_BASE", |ring| ring.base.is_some())
}

fn enabled_last(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ENABLE], |seen| {
        let Some((index, 1)) = vring_state(seen) else {
            return Ok(());
        };
        let ring = seen.before.rings.get(&index).cloned().unwrap_or_default();
        demand(ring.size.is_some() && ring.places.is_some(), || {
            format!("ring {index} is enabled, and has no size or no addresses")
        })
    })
}

/// A ring's number, and the number that is told of it.
pub fn vring_state(seen: &Seen) -> Option<(u32, u32)> {
    let state = seen.body::<vhost::vhost_user::message::VhostUserVringState>()?;
    Some((state.index, state.num))
}

fn keeps_place(history: &History) -> Verdict {
    let requests = [
        FrontendReq::SET_VRING_NUM,
        FrontendReq::SET_VRING_BASE,
        FrontendReq::SET_VRING_ADDR,
    ];
    each(history, &requests, |seen| {
        let index = match seen.body::<VhostUserVringAddr>() {
            Some(addresses) => Some(addresses.index),
            None => vring_state(seen).map(|(index, _)| index),
        };
        let ring = index.and_then(|index| seen.before.rings.get(&index));
        let Some(ring) = ring.filter(|ring| ring.is_started) else {
            return Ok(());
        };
        demand(is_same(seen, ring), || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            format!("{name} changes ring {index:?}, which is started")
        })
    })
}

/// Whether a message says of a ring what is so already. Its addresses are sent again to have its
/// used ring logged.
fn is_same(seen: &Seen, ring: &RingState) -> bool {
    if let Some(addresses) = seen.body::<VhostUserVringAddr>() {
        let places = [addresses.descriptor, addresses.available, addresses.used];
        return ring.places == Some(places);
    }
    let value = vring_state(seen).map(|(_, value)| value);
    value == ring.size && seen.is(FrontendReq::SET_VRING_NUM)
}

fn no_second_start(history: &History) -> Verdict {
    each(history, START, |seen| {
        let (index, ring) = ring(seen);
        demand(!ring.is_started, || {
            format!("SET_VRING_KICK of ring {index}, which is started")
        })
    })
}
