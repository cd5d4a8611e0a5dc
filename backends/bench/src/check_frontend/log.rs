//! The log of written pages, for live migration.

use vhost::vhost_user::message::{FrontendReq, VhostUserLog};
use vhost_user_wire::features::VHOST_F_LOG_ALL;

use super::types::{FrontendCheck, Method, each};
use crate::backend::{History, LOG_PAGE, Region};
use crate::check::{Fault, Level, Source, Verdict, demand};

const MIGRATION: Source = Source::VhostUser("Migration");

pub const CHECKS: &[FrontendCheck] = &[
    FrontendCheck {
        name: "log.covers-memory",
        level: Level::Should,
        source: MIGRATION,
        rule: "the size of the log should be large enough to cover all known guest addresses",
        method: Method::Look(covers_memory),
    },
    FrontendCheck {
        name: "log.in-its-file",
        level: Level::Must,
        source: Source::VhostUser("Log description"),
        rule: "the log is an area of the supplied file: it has log size bytes from log offset on",
        method: Method::Look(in_file),
    },
    FrontendCheck {
        name: "log.base-before-log-all",
        level: Level::Should,
        source: MIGRATION,
        rule: "to start logging, the front-end sends SET_FEATURES with VHOST_F_LOG_ALL: \
               SET_LOG_BASE has come before it",
        method: Method::Look(base_first),
    },
    FrontendCheck {
        name: "log.used-ring-in-log",
        level: Level::Must,
        source: MIGRATION,
        rule: "the bit offset of the last byte of a used ring that is logged must fall within the \
               size supplied by VhostUserLog",
        method: Method::Look(used_ring),
    },
];

const BASE: &[FrontendReq] = &[FrontendReq::SET_LOG_BASE];

/// The end of what a log of so many bytes covers.
fn covered(bytes: u64) -> u64 {
    bytes.saturating_mul(8 * LOG_PAGE)
}

fn covers_memory(history: &History) -> Verdict {
    each(history, BASE, |seen| {
        let size = seen.body::<VhostUserLog>().map_or(0, |log| log.mmap_size);
        let end = |region: &Region| region.guest.saturating_add(region.size);
        let end = seen.before.regions.iter().map(end).max().unwrap_or(0);
        demand(end <= covered(size), || {
            format!("guest memory ends at {end:#x}, and the log has {size:#x} bytes")
        })
    })
}

fn in_file(history: &History) -> Verdict {
    each(history, BASE, |seen| {
        let (Some(log), Some(file)) = (seen.body::<VhostUserLog>(), seen.files.first()) else {
            return Ok(());
        };
        let (size, offset) = (log.mmap_size, log.mmap_offset);
        let end = offset.checked_add(size);
        demand(end.is_some_and(|end| end <= file.size), || {
            let len = file.size;
            format!("{size:#x} bytes at {offset:#x} of a file of {len:#x}")
        })
    })
}

fn base_first(history: &History) -> Verdict {
    let mut is_any = false;
    for seen in history.seen() {
        let features = seen.body::<u64>().unwrap_or(0);
        if seen.is(FrontendReq::SET_FEATURES) && features & 1 << VHOST_F_LOG_ALL != 0 {
            is_any = true;
            demand(seen.before.log.is_some(), || {
                "SET_FEATURES with LOG_ALL, and there is no log".into()
            })?;
        }
    }
    if is_any {
        return Ok(());
    }
    Err(Fault::skip("it does not set LOG_ALL"))
}

/// Of the rings that are logged when a message comes.
fn used_ring(history: &History) -> Verdict {
    let mut is_any = false;
    for seen in history.seen() {
        let state = &seen.before;
        let Some(log) = state.log.filter(|_| state.has(VHOST_F_LOG_ALL)) else {
            continue;
        };
        for (index, ring) in &state.rings {
            let Some((begin, len)) = ring.logged(state) else {
                continue;
            };
            is_any = true;
            let is_inside = begin
                .checked_add(len)
                .is_some_and(|end| end <= covered(log));
            demand(is_inside, || {
                format!("ring {index}'s is logged at {begin:#x}, and the log has {log:#x} bytes")
            })?;
        }
    }
    if is_any {
        return Ok(());
    }
    Err(Fault::skip("it has no used ring logged"))
}
