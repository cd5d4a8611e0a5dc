//! What messages say of rings.

use std::collections::BTreeMap;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserProtocolFeatures as Protocol, VhostUserVringAddr,
};
use vhost_user_wire::payload::NO_FILE;
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;

use super::order::vring_state;
use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, Seen, lengths};
use crate::check::{Fault, Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "vring.size-is-a-power-of-2",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "Queue Size value is always a power of 2",
        method: Method::Look(power_of_2),
    },
    FrontendCheck {
        name: "vring.size-at-most-32768",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the maximum Queue Size value is 32768",
        method: Method::Look(size_in_range),
    },
    FrontendCheck {
        name: "vring.index-within-queues",
        level: Level::Should,
        source: Source::VhostUser("Multiple queue support"),
        rule: "the front-end should stop when the number of requested queues is bigger than what \
               GET_QUEUE_NUM returns",
        method: Method::Look(index_in_range),
    },
    FrontendCheck {
        name: "vring.descriptors-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the descriptor table is aligned to 16",
        method: Method::Look(|history| aligned(history, 0, 16)),
    },
    FrontendCheck {
        name: "vring.available-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the available ring is aligned to 2",
        method: Method::Look(|history| aligned(history, 1, 2)),
    },
    FrontendCheck {
        name: "vring.used-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the used ring is aligned to 4",
        method: Method::Look(|history| aligned(history, 2, 4)),
    },
    FrontendCheck {
        name: "vring.in-memory",
        level: Level::Must,
        source: Source::VhostUser("Memory access"),
        rule: "user addresses map to the vhost memory region containing that user address: all of \
               a ring is in regions that were sent before it is started",
        method: Method::Look(in_memory),
    },
    FrontendCheck {
        name: "vring.parts-apart",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "descriptor table, available ring and used ring are separate areas of guest memory",
        method: Method::Look(parts_apart),
    },
    FrontendCheck {
        name: "vring.address-flags",
        level: Level::Should,
        source: Source::VhostUser("A vring address description"),
        rule: "flags have no bit but VHOST_VRING_F_LOG",
        method: Method::Look(address_flags),
    },
    FrontendCheck {
        name: "vring.base-reserved-bits",
        level: Level::Must,
        source: Source::VhostUser("A vring descriptor index for split virtqueues"),
        rule: "bits 16-31 of the index in the available ring are reserved (set to zero)",
        method: Method::Look(base_bits),
    },
    FrontendCheck {
        name: "vring.base-as-returned",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "a ring that was stopped starts again at the base that GET_VRING_BASE returned, or \
               at 0 when the device was reset",
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

fn is_packed(seen: &Seen) -> bool {
    seen.before.has(VIRTIO_F_RING_PACKED)
}

fn power_of_2(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_NUM], |seen| {
        let (index, size) = vring_state(seen).unwrap_or_default();
        demand(is_packed(seen) || size.is_power_of_two(), || {
            format!("ring {index} has {size} entries")
        })
    })
}

fn size_in_range(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_NUM], |seen| {
        let (index, size) = vring_state(seen).unwrap_or_default();
        demand((1..=32768).contains(&size), || {
            format!("ring {index} has {size} entries")
        })
    })
}

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

fn places(seen: &Seen) -> Option<(u32, [u64; 3])> {
    let addresses = seen.body::<VhostUserVringAddr>()?;
    let places = [addresses.descriptor, addresses.available, addresses.used];
    Some((addresses.index, places))
}

const PARTS: [&str; 3] = ["descriptor table", "available ring", "used ring"];

fn aligned(history: &History, part: usize, align: u64) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ADDR], |seen| {
        let Some((index, places)) = places(seen).filter(|_| !is_packed(seen)) else {
            return Ok(());
        };
        demand(places[part].is_multiple_of(align), || {
            format!("ring {index}'s {} is at {:#x}", PARTS[part], places[part])
        })
    })
}

/// The rings with size and places when one is started.
fn each_start(
    history: &History,
    judge: impl Fn(&Seen, u32, [u64; 3], [u64; 3]) -> Verdict,
) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_KICK], |seen| {
        let index = seen.payload.first().copied().unwrap_or(0).into();
        let ring = seen.before.rings.get(&index).cloned().unwrap_or_default();
        let size = ring.size.and_then(|size| u16::try_from(size).ok());
        match (size, ring.places) {
            (Some(size), Some(places)) if !is_packed(seen) => {
                judge(seen, index, places, lengths(size))
            }
            _ => Ok(()),
        }
    })
}

fn in_memory(history: &History) -> Verdict {
    each_start(history, |seen, index, places, lengths| {
        let is_guest = seen.before.has_protocol(Protocol::GPA_ADDRESSES);
        for part in 0..PARTS.len() {
            let (place, len) = (places[part], lengths[part]);
            let is_inside = seen.before.regions.iter().any(|region| {
                let begin = if is_guest { region.guest } else { region.user };
                let at = place.checked_sub(begin);
                at.is_some_and(|at| at.checked_add(len).is_some_and(|end| end <= region.size))
            });
            demand(is_inside, || {
                let part = PARTS[part];
                format!("ring {index}'s {part}, {len} bytes at {place:#x}, is in no region")
            })?;
        }
        Ok(())
    })
}

fn parts_apart(history: &History) -> Verdict {
    each_start(history, |_, index, places, lengths| {
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let end = |part: usize| places[part].saturating_add(lengths[part]);
            let is_apart = end(one) <= places[other] || end(other) <= places[one];
            demand(is_apart, || {
                let (one_name, other_name) = (PARTS[one], PARTS[other]);
                format!(
                    "ring {index}'s {one_name} at {:#x} and {other_name} at {:#x} overlap",
                    places[one], places[other]
                )
            })?;
        }
        Ok(())
    })
}

fn address_flags(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_ADDR], |seen| {
        let flags = seen.body::<VhostUserVringAddr>().map_or(0, |it| it.flags);
        demand(flags & !1 == 0, || format!("the flags are {flags:#x}"))
    })
}

fn base_bits(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_BASE], |seen| {
        let (index, base) = vring_state(seen).unwrap_or_default();
        demand(is_packed(seen) || base >> 16 == 0, || {
            format!("ring {index} has the base {base:#x}")
        })
    })
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
            demand(base == 0 || base == *known, || {
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
