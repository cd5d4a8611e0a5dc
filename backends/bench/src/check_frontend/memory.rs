//! Guest memory.

use std::rc::Rc;

use vhost::vhost_user::message::{
    FrontendReq, VhostUserProtocolFeatures as Protocol, VhostUserSingleMemoryRegion,
};
use vhost_user_wire::payload::MemoryTable;

use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, Region, Seen};
use crate::check::{Level, Source, Verdict, demand};

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "memory.guest-addresses-apart",
        level: Level::Must,
        source: Source::VhostUser("Memory region description"),
        rule: "the guest addresses of one memory region never overlap those of another",
        method: Method::Look(|history| apart(history, "guest", |region| region.guest)),
    },
    FrontendCheck {
        name: "memory.user-addresses-apart",
        level: Level::Must,
        source: Source::VhostUser("Memory region description"),
        rule: "the user addresses of one memory region never overlap those of another",
        method: Method::Look(|history| apart(history, "user", |region| region.user)),
    },
    FrontendCheck {
        name: "memory.region-has-a-size",
        level: Level::Should,
        source: Source::VhostUser("Memory region description"),
        rule: "a region has a size that is not 0, and ends within 64 bits",
        method: Method::Look(sizes),
    },
    FrontendCheck {
        name: "memory.region-in-its-file",
        level: Level::Should,
        source: Source::VhostUser("Memory region description"),
        rule: "mmap offset is where the region starts in the mapped memory: the file is not \
               shorter than offset and size",
        method: Method::Look(in_file),
    },
    FrontendCheck {
        name: "memory.offset-of-whole-pages",
        level: Level::Should,
        source: Source::VhostUser("Memory region description"),
        rule: "a region can be mapped from its offset on, which takes whole pages",
        method: Method::Look(whole_pages),
    },
    FrontendCheck {
        name: "memory.at-most-8-regions",
        level: Level::Must,
        source: Source::VhostUser("Multiple Memory regions description"),
        rule: "SET_MEM_TABLE has at most 8 regions",
        method: Method::Look(at_most_8),
    },
    FrontendCheck {
        name: "memory.table-has-regions",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_MEM_TABLE"),
        rule: "SET_MEM_TABLE has a region",
        method: Method::Look(not_empty),
    },
    FrontendCheck {
        name: "memory.within-slots",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_MAX_MEM_SLOTS"),
        rule: "the back-end says the maximum number of memory slots to expose to the guest: there \
               are no more regions than that",
        method: Method::Look(within_slots),
    },
    FrontendCheck {
        name: "memory.slots-asked-for",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_MAX_MEM_SLOTS"),
        rule: "GET_MAX_MEM_SLOTS comes before the first ADD_MEM_REG",
        method: Method::Look(slots_asked),
    },
    FrontendCheck {
        name: "memory.removes-what-there-is",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_REM_MEM_REG"),
        rule: "the memory region to be removed is identified by its guest address, user address \
               and size: it has been added with these",
        method: Method::Look(removes_known),
    },
    FrontendCheck {
        name: "memory.removes-without-file",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_REM_MEM_REG"),
        rule: "no file descriptors SHOULD be passed in the ancillary data",
        method: Method::Look(removes_without_file),
    },
    FrontendCheck {
        name: "memory.guest-for-user-addresses",
        level: Level::Must,
        source: Source::VhostUser("Memory region description"),
        rule: "when VHOST_USER_PROTOCOL_F_GPA_ADDRESSES is negotiated, the user address must \
               duplicate the guest address",
        method: Method::Look(guest_for_user),
    },
];

const TELL: &[FrontendReq] = &[FrontendReq::SET_MEM_TABLE, FrontendReq::ADD_MEM_REG];

/// The regions that a message tells of.
fn told(seen: &Seen) -> Vec<Region> {
    if seen.is(FrontendReq::SET_MEM_TABLE) {
        let table = seen.body::<MemoryTable>().unwrap_or_default();
        return table.0.iter().map(Region::from).collect();
    }
    let region = seen.body::<VhostUserSingleMemoryRegion>();
    region.iter().map(Region::from).collect()
}

/// All that are there behind a message.
fn after(seen: &Seen) -> Vec<Region> {
    let mut regions = told(seen);
    if seen.is(FrontendReq::ADD_MEM_REG) {
        regions.extend(Rc::clone(&seen.before.regions).iter());
    }
    regions
}

fn apart(history: &History, what: &str, begin: fn(&Region) -> u64) -> Verdict {
    each(history, TELL, |seen| {
        let mut regions = after(seen);
        regions.sort_by_key(begin);
        for pair in regions.windows(2) {
            let end = begin(&pair[0]).saturating_add(pair[0].size);
            let next = begin(&pair[1]);
            demand(end <= next, || {
                format!("a region ends at {what} address {end:#x}, and one begins at {next:#x}")
            })?;
        }
        Ok(())
    })
}

fn each_region(history: &History, holds: impl Fn(&Region) -> bool) -> Verdict {
    each(history, TELL, |seen| {
        let regions = told(seen);
        let wrong = regions.iter().find(|region| !holds(region));
        demand(wrong.is_none(), || format!("{wrong:x?}"))
    })
}

fn sizes(history: &History) -> Verdict {
    each_region(history, |region| {
        let ends = region.guest.checked_add(region.size).is_some()
            && region.user.checked_add(region.size).is_some();
        region.size > 0 && ends
    })
}

fn in_file(history: &History) -> Verdict {
    each(history, TELL, |seen| {
        for (region, file) in told(seen).iter().zip(&seen.files) {
            let end = region.offset.checked_add(region.size);
            let fits = end.is_some_and(|end| end <= file.size);
            demand(fits || !file.is_regular, || {
                format!("{region:x?}, and its file has {:#x} bytes", file.size)
            })?;
        }
        Ok(())
    })
}

fn whole_pages(history: &History) -> Verdict {
    each_region(history, |region| region.offset.is_multiple_of(0x1000))
}

fn at_most_8(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_MEM_TABLE], |seen| {
        let count = told(seen).len();
        demand(count <= 8, || format!("SET_MEM_TABLE of {count} regions"))
    })
}

fn not_empty(history: &History) -> Verdict {
    each(history, &[FrontendReq::SET_MEM_TABLE], |seen| {
        demand(!told(seen).is_empty(), || {
            "SET_MEM_TABLE without a region".into()
        })
    })
}

fn within_slots(history: &History) -> Verdict {
    each(history, &[FrontendReq::ADD_MEM_REG], |seen| {
        let (count, slots) = (after(seen).len() as u64, seen.before.slots);
        demand(slots.is_none_or(|slots| count <= slots), || {
            format!("{count} regions, and GET_MAX_MEM_SLOTS returned {slots:?}")
        })
    })
}

fn slots_asked(history: &History) -> Verdict {
    each(history, &[FrontendReq::ADD_MEM_REG], |seen| {
        demand(seen.before.slots.is_some(), || {
            "ADD_MEM_REG without GET_MAX_MEM_SLOTS".into()
        })
    })
}

fn removes_known(history: &History) -> Verdict {
    each(history, &[FrontendReq::REM_MEM_REG], |seen| {
        let region = told_single(seen);
        let mut known = seen.before.regions.iter();
        let is_known = region.is_some_and(|region| known.any(|it| it.is_named_by(&region)));
        demand(is_known, || format!("{region:x?} was never added"))
    })
}

fn told_single(seen: &Seen) -> Option<Region> {
    let region = seen.body::<VhostUserSingleMemoryRegion>()?;
    Some(Region::from(&region))
}

fn removes_without_file(history: &History) -> Verdict {
    each(history, &[FrontendReq::REM_MEM_REG], |seen| {
        demand(seen.files.is_empty(), || "REM_MEM_REG with a file".into())
    })
}

fn guest_for_user(history: &History) -> Verdict {
    each(history, TELL, |seen| {
        let is_negotiated = seen.before.has_protocol(Protocol::GPA_ADDRESSES);
        let regions = told(seen);
        let wrong = regions.iter().find(|region| region.guest != region.user);
        demand(!is_negotiated || wrong.is_none(), || format!("{wrong:x?}"))
    })
}
