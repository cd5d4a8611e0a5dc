//! What messages say of rings, but for sizes and places.

use std::collections::{BTreeMap, BTreeSet};

use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::payload::{NO_FILE, VringFile};

use super::order::vring_state;
use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, Seen};
use crate::check::{Fault, Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "vring.index-within-queues",
        level: Level::Should,
        source: Source::VhostUser("Multiple queue support"),
        rule: "the front-end should stop when the number of requested queues is bigger than what \
               GET_QUEUE_NUM returns",
        method: Method::Look(index_in_range),
    },
    FrontendCheck {
        name: "vring.base-reserved-bits",
        level: Level::Must,
        source: Source::VhostUser("A vring descriptor index for split virtqueues"),
        rule: "bits 16-31 of the index in the available ring are reserved (set to zero)",
        method: Method::Look(base_bits),
    },
    FrontendCheck {
        name: "packed.base-in-ring",
        level: Level::Must,
        source: Source::VhostUser("A vring descriptor index for packed virtqueues"),
        rule: "bits 0-14 and 16-30 are indices of the descriptor ring",
        method: Method::Look(packed_base),
    },
    FrontendCheck {
        name: "packed.begins-with-wrap-counters-of-1",
        level: Level::Must,
        source: Source::Virtio("2.8.1 Driver and Device Ring Wrap Counters"),
        rule: "both the driver and the device wrap counter are initialized to 1: bits 15 and 31 \
               of the first base of a ring that was never stopped",
        method: Method::Look(packed_begin),
    },
    FrontendCheck {
        name: "vring.base-as-returned",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "a ring that was stopped starts again at the base that GET_VRING_BASE returned, or \
               at its begin when the device was reset",
        method: Method::Look(base_kept),
    },
    FrontendCheck {
        name: "vring.stop-reserved-number",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "the request payload's num field is currently reserved and must be set to 0",
        method: Method::Look(stop_number),
    },
    FrontendCheck {
        name: "vring.stop-of-a-known-ring",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "GET_VRING_BASE is for a ring that was set up on this connection",
        method: Method::Look(stop_known),
    },
    FrontendCheck {
        name: "vring.enable-is-0-or-1",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_ENABLE"),
        rule: "SET_VRING_ENABLE enables (1) or disables (0) a vring",
        method: Method::Look(enable_number),
    },
    FrontendCheck {
        name: "vring.enable-when-negotiated",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_ENABLE"),
        rule: "this request should be sent only when VHOST_USER_F_PROTOCOL_FEATURES has been \
               negotiated",
        method: Method::Look(enable_negotiated),
    },
    FrontendCheck {
        name: "vring.started-rings-are-enabled",
        level: Level::Should,
        source: Source::VhostUser("Ring states"),
        rule: "each ring is initialized in a stopped and disabled state: with \
               VHOST_USER_F_PROTOCOL_FEATURES negotiated, the rings of a driver are enabled",
        method: Method::Look(gets_enabled),
    },
    FrontendCheck {
        name: "vring.event-bits",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_VRING_KICK"),
        rule: "bits (0-7) of the payload contain the vring index, bit 8 is the invalid FD flag, \
               and there are no others",
        method: Method::Look(event_bits),
    },
    FrontendCheck {
        name: "vring.call-before-start",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_CALL"),
        rule: "SET_VRING_CALL has come for a ring that is started, if only to say that there is \
               no descriptor",
        method: Method::Look(has_call),
    },
    FrontendCheck {
        name: "vring.events-of-their-own",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_KICK"),
        rule: "the kick and the call descriptor of a ring are different files",
        method: Method::Look(own_events),
    },
    FrontendCheck {
        name: "vring.kick-after-start",
        level: Level::Should,
        source: Source::VhostUser("Ring states"),
        rule: "front-ends SHOULD inject a kick after VHOST_USER_SET_VRING_KICK",
        method: Method::Look(kick_after_start),
    },
];

fn index_in_range(history: &History) -> Verdict {
    let requests = [
        FrontendReq::SET_VRING_NUM,
        FrontendReq::SET_VRING_BASE,
        FrontendReq::SET_VRING_ENABLE,
    ];
    each(history, &requests, |seen| {
        let (index, _) = vring_state(seen).unwrap_or_default();
        let queues = seen.before.queues.unwrap_or(u64::MAX);
        demand(u64::from(index) < queues, || {
            format!("ring {index}, and GET_QUEUE_NUM returned {queues}")
        })
    })
}

fn base_bits(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_BASE], |seen| {
        let (index, base) = vring_state(seen).unwrap_or_default();
        demand(seen.before.is_packed() || base >> 16 == 0, || {
            format!("ring {index} has the base {base:#x}")
        })
    })
}

/// Index 0 and a wrap counter of 1, of driver and device.
const PACKED_BEGIN: u32 = 0x8000_8000;

/// The starts of packed rings, with their size and base.
fn each_packed_start(history: &History, judge: impl Fn(u8, u32, u32) -> Verdict) -> Verdict {
    let mut is_any = false;
    each(history, &[FrontendReq::SET_VRING_KICK], |_| Ok(()))?;
    for seen in history.seen() {
        let Some(file) = seen.body::<VringFile>() else {
            continue;
        };
        if !seen.is(FrontendReq::SET_VRING_KICK) || !seen.before.is_packed() {
            continue;
        }
        let ring = seen.before.rings.get(&file.index.into());
        let told = ring.and_then(|ring| Some((ring.size?, ring.base?)));
        if let Some((size, base)) = told {
            is_any = true;
            judge(file.index, size, base)?;
        }
    }
    if is_any {
        return Ok(());
    }
    Err(Fault::skip("it starts no packed ring"))
}

fn packed_base(history: &History) -> Verdict {
    each_packed_start(history, |index, size, base| {
        let positions = [base & 0x7fff, base >> 16 & 0x7fff];
        let is_inside = positions.iter().all(|position| *position < size);
        demand(is_inside, || {
            format!("ring {index} has {size} descriptors and starts at {base:#x}")
        })
    })
}

/// Where a position is 0, and nothing came before: one that was around once has a counter of 0.
fn packed_begin(history: &History) -> Verdict {
    let mut begun = BTreeSet::new();
    let mut first = None;
    let starts = each_packed_start(history, |_, _, _| Ok(()));
    for seen in history.seen() {
        let Some((index, base)) = vring_state(seen) else {
            continue;
        };
        let is_first =
            seen.is(FrontendReq::SET_VRING_BASE) && seen.before.is_packed() && begun.insert(index);
        if is_first && base != PACKED_BEGIN && first.is_none() {
            first = Some((index, base));
        }
    }
    starts?;
    demand(first.is_none(), || format!("ring and base: {first:x?}"))
}

/// Each ring's last base, on whatever connection: a frontend that connects again knows it too.
fn base_kept(history: &History) -> Verdict {
    let mut returned = BTreeMap::new();
    let mut is_any = false;
    for seen in history.seen() {
        for (index, ring) in &seen.before.rings {
            if let Some(base) = ring.returned {
                returned.insert(*index, base);
            }
        }
        let Some((index, base)) =
            vring_state(seen).filter(|_| seen.is(FrontendReq::SET_VRING_BASE))
        else {
            continue;
        };
        if let Some(known) = returned.get(&index) {
            is_any = true;
            let begin = if seen.before.is_packed() {
                PACKED_BEGIN
            } else {
                0
            };
            demand(base == begin || base == *known, || {
                format!("ring {index} was stopped at {known} and starts at {base}")
            })?;
        }
    }
    if is_any {
        return Ok(());
    }
    Err(Fault::skip("it starts no ring again that was stopped"))
}

fn stop_number(history: &History) -> Verdict {
    each(history, &[FrontendReq::GET_VRING_BASE], |seen| {
        let (index, number) = vring_state(seen).unwrap_or_default();
        demand(number == 0, || {
            format!("GET_VRING_BASE of ring {index} with num {number}")
        })
    })
}

fn stop_known(history: &History) -> Verdict {
    each(history, &[FrontendReq::GET_VRING_BASE], |seen| {
        let (index, _) = vring_state(seen).unwrap_or_default();
        let is_known = seen.before.rings.contains_key(&index);
        demand(is_known, || {
            format!("GET_VRING_BASE of ring {index}, of which nothing was said")
        })
    })
}

fn enable_number(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ENABLE], |seen| {
        let (index, number) = vring_state(seen).unwrap_or_default();
        demand(number <= 1, || {
            format!("SET_VRING_ENABLE of ring {index} with {number}")
        })
    })
}

fn enable_negotiated(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ENABLE], |seen| {
        demand(seen.before.has_protocol_features(), || {
            let features = seen.before.features;
            format!("SET_VRING_ENABLE with the features {features:x?}")
        })
    })
}

/// Of the rings that are started when the last message has come.
fn gets_enabled(history: &History) -> Verdict {
    let is_enabled = |seen: &&Seen| {
        seen.is(FrontendReq::SET_VRING_ENABLE) && matches!(vring_state(seen), Some((_, 1)))
    };
    each(history, &[FrontendReq::SET_VRING_KICK], |start| {
        if !start.before.has_protocol_features() {
            return Ok(());
        }
        let index = u32::from(start.payload.first().copied().unwrap_or(0));
        let messages = history.seen().iter();
        let mut on_it = messages.filter(|seen| seen.connection == start.connection);
        let is_on = on_it.any(|seen| {
            let is_it = vring_state(seen).is_some_and(|(of, _)| of == index);
            is_it && is_enabled(&seen)
        });
        demand(is_on || history.is_cut_short(), || {
            format!("ring {index} is started and never enabled")
        })
    })
}

const EVENTS: &[FrontendReq] = &[
    FrontendReq::SET_VRING_KICK,
    FrontendReq::SET_VRING_CALL,
    FrontendReq::SET_VRING_ERR,
];

fn event_bits(history: &History) -> Verdict {
    each(history, EVENTS, |seen| {
        let bits = seen.body::<u64>().unwrap_or(0);
        demand(bits & !(0xff | NO_FILE) == 0, || {
            let name = vhost_user_wire::name::frontend(seen.header.request);
            format!("{name} with {bits:#x}")
        })
    })
}

fn has_call(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_KICK], |start| {
        let is_it = |seen: &&Seen| {
            seen.is(FrontendReq::SET_VRING_CALL)
                && seen.connection == start.connection
                && seen.payload.first() == start.payload.first()
        };
        demand(history.seen().iter().any(|seen| is_it(&seen)), || {
            format!("no SET_VRING_CALL for ring {:?}", start.payload.first())
        })
    })
}

fn own_events(history: &History) -> Verdict {
    let mut calls = BTreeMap::new();
    each(history, &[FrontendReq::SET_VRING_KICK], |_| Ok(()))?;
    for seen in history.seen().iter().filter(|seen| seen.is_one_of(EVENTS)) {
        let Some(number) = seen.files.first().and_then(|file| file.number) else {
            continue;
        };
        let key = (seen.connection, seen.payload.first().copied());
        if seen.is(FrontendReq::SET_VRING_CALL) {
            calls.insert(key, number);
        } else if seen.is(FrontendReq::SET_VRING_KICK) {
            demand(calls.get(&key) != Some(&number), || {
                format!("ring {:?} has one eventfd for kick and call", key.1)
            })?;
        }
    }
    Ok(())
}

/// A ring whose connection ended at once may not have had the time.
fn kick_after_start(history: &History) -> Verdict {
    if history.starts().next().is_none() {
        return Err(Fault::skip("it starts no ring"));
    }
    let mut starts = history.starts();
    match starts.find(|(_, is_kicked)| !is_kicked) {
        Some((queue, _)) if !history.is_cut_short() => Err(Fault::broken(format!(
            "queue {queue} was started and not kicked"
        ))),
        _ => Ok(()),
    }
}
