//! Sizes of rings, and where they are.

use vhost::vhost_user::message::{
    FrontendReq, VhostUserProtocolFeatures as Protocol, VhostUserVringAddr,
};

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
        name: "vring.descriptors-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the descriptor table is aligned to 16",
        method: Method::Look(|history| aligned(history, false, 0, 16)),
    },
    FrontendCheck {
        name: "vring.available-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the available ring is aligned to 2",
        method: Method::Look(|history| aligned(history, false, 1, 2)),
    },
    FrontendCheck {
        name: "vring.used-aligned",
        level: Level::Must,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the used ring is aligned to 4",
        method: Method::Look(|history| aligned(history, false, 2, 4)),
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
        name: "packed.ring-aligned",
        level: Level::Must,
        source: Source::Virtio("2.8 Packed Virtqueues"),
        rule: "the descriptor ring is aligned to 16",
        method: Method::Look(|history| aligned(history, true, 0, 16)),
    },
    FrontendCheck {
        name: "packed.driver-event-aligned",
        level: Level::Must,
        source: Source::Virtio("2.8 Packed Virtqueues"),
        rule: "the driver event suppression structure is aligned to 4",
        method: Method::Look(|history| aligned(history, true, 1, 4)),
    },
    FrontendCheck {
        name: "packed.device-event-aligned",
        level: Level::Must,
        source: Source::Virtio("2.8 Packed Virtqueues"),
        rule: "the device event suppression structure is aligned to 4",
        method: Method::Look(|history| aligned(history, true, 2, 4)),
    },
];

fn power_of_2(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_VRING_NUM], |seen| {
        let (index, size) = vring_state(seen).unwrap_or_default();
        demand(seen.before.is_packed() || size.is_power_of_two(), || {
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

fn places(seen: &Seen) -> Option<(u32, [u64; 3])> {
    let addresses = seen.body::<VhostUserVringAddr>()?;
    let places = [addresses.descriptor, addresses.available, addresses.used];
    Some((addresses.index, places))
}

const SPLIT: [&str; 3] = ["descriptor table", "available ring", "used ring"];
const PACKED: [&str; 3] = [
    "descriptor ring",
    "driver event suppression structure",
    "device event suppression structure",
];

/// The rule is of one format, and may be of the other alone.
fn is_any(history: &History, is_packed: bool) -> Verdict {
    let set = |seen: &&Seen| seen.is(FrontendReq::SET_VRING_ADDR);
    let mut set = history.seen().iter().filter(set);
    if set.any(|seen| seen.before.is_packed() == is_packed) {
        return Ok(());
    }
    let what = if is_packed { "packed" } else { "split" };
    Err(Fault::skip(format!("it sets up no {what} ring")))
}

fn part_names(seen: &Seen) -> [&'static str; 3] {
    if seen.before.is_packed() {
        PACKED
    } else {
        SPLIT
    }
}

fn aligned(history: &History, is_packed: bool, part: usize, align: u64) -> Verdict {
    is_any(history, is_packed)?;
    each(history, &[FrontendReq::SET_VRING_ADDR], |seen| {
        let Some((index, places)) = places(seen).filter(|_| seen.before.is_packed() == is_packed)
        else {
            return Ok(());
        };
        demand(places[part].is_multiple_of(align), || {
            format!(
                "ring {index}'s {} is at {:#x}",
                part_names(seen)[part],
                places[part]
            )
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
            (Some(size), Some(places)) => {
                judge(seen, index, places, lengths(size, seen.before.is_packed()))
            }
            _ => Ok(()),
        }
    })
}

fn in_memory(history: &History) -> Verdict {
    each_start(history, |seen, index, places, lengths| {
        let is_guest = seen.before.has_protocol(Protocol::GPA_ADDRESSES);
        for (part, name) in part_names(seen).into_iter().enumerate() {
            let (place, len) = (places[part], lengths[part]);
            let is_inside = seen.before.regions.iter().any(|region| {
                let begin = if is_guest { region.guest } else { region.user };
                let at = place.checked_sub(begin);
                at.is_some_and(|at| at.checked_add(len).is_some_and(|end| end <= region.size))
            });
            demand(is_inside, || {
                format!("ring {index}'s {name}, {len} bytes at {place:#x}, is in no region")
            })?;
        }
        Ok(())
    })
}

fn parts_apart(history: &History) -> Verdict {
    each_start(history, |seen, index, places, lengths| {
        let names = part_names(seen);
        for (one, other) in [(0, 1), (0, 2), (1, 2)] {
            let end = |part: usize| places[part].saturating_add(lengths[part]);
            let is_apart = end(one) <= places[other] || end(other) <= places[one];
            demand(is_apart, || {
                let (one_name, other_name) = (names[one], names[other]);
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
