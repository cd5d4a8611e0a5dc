//! The region of an address space that an address lies in: pages of equal rights, or a gap
//! between such.

use super::mode::Mode;
use super::ranges::{Limits, Row};
use super::space::{ALL, AddressSpace, Rights};
use crate::address::{PhysAddr, VirtAddr};
use crate::error::TargetError;

/// Neighbouring pages of equal rights, whatever their size, or addresses that lead nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    pub start: u64,
    /// The last byte.
    pub last: u64,
    /// `None` in a gap.
    pub rights: Option<Rights>,
}

const PAGE: u64 = 4096;

/// What is looked at in front of an address: a part of a gigabyte that is aligned to one,
/// which is where kernels begin what they map.
const BEFORE: u64 = 1 << 30;

/// The guest's tables are not trusted. A region ends where this does.
const LIMITS: Limits = Limits {
    tables: 2048,
    rows: 4096,
};

/// Of the memory behind an address, where one region is wanted.
const LIMITS_BEHIND: Limits = Limits { rows: 16, ..LIMITS };

impl AddressSpace {
    /// The region that `addr` lies in. It may be cut short on either side, where the guest's
    /// tables ask for too much work.
    pub fn region(
        &self,
        addr: u64,
        mut read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
    ) -> Region {
        if self.mode == Mode::Off {
            return physical(addr);
        }
        let page = addr & !(PAGE - 1);
        let here = self.translate(VirtAddr(addr), &mut read).ok();
        let rights = here.map(|translation| translation.rights);
        let behind = self.ranges((page, u64::MAX), LIMITS_BEHIND, &mut read);
        let begin = page & !(BEFORE - 1);
        let before = match page {
            0 => Vec::new(),
            _ => self.ranges((begin, page - 1), LIMITS, &mut read).rows,
        };
        let end = behind.stopped_at.unwrap_or(u64::MAX);
        Region {
            start: first(begin, page, rights, &before).min(page),
            last: last(page, rights, &behind.rows, end).max(page | (PAGE - 1)),
            rights,
        }
    }
}

/// Without paging.
fn physical(addr: u64) -> Region {
    const END: u64 = 1 << 32;
    match addr < END {
        true => Region {
            start: 0,
            last: END - 1,
            rights: Some(ALL),
        },
        false => Region {
            start: END,
            last: u64::MAX,
            rights: None,
        },
    }
}

/// The last byte of the region at `page`, given what is mapped from there on, up to `end`.
fn last(page: u64, rights: Option<Rights>, rows: &[Row], end: u64) -> u64 {
    let Some(rights) = rights else {
        let next = rows.first().map_or(end, |row| match row {
            Row::Span(span) => span.start,
            Row::Repeat { start, .. } => *start,
        });
        return match next {
            u64::MAX => u64::MAX,
            next => next.saturating_sub(1),
        };
    };
    let mut last = page;
    for row in rows {
        match row {
            Row::Span(span) if span.rights == rights && span.start <= last.saturating_add(1) => {
                last = span.last;
            }
            _ => break,
        }
    }
    last
}

/// The first byte of the region at `page`, given what is mapped in front of it from
/// `begin` on.
fn first(begin: u64, page: u64, rights: Option<Rights>, rows: &[Row]) -> u64 {
    let Some(rights) = rights else {
        return match rows.last() {
            None => begin,
            Some(Row::Span(span)) => span.last.saturating_add(1),
            Some(Row::Repeat { last, .. }) => last.saturating_add(1),
        };
    };
    let mut first = page;
    for row in rows.iter().rev() {
        match row {
            Row::Span(span) if span.rights == rights && span.last >= first - 1 => {
                first = span.start;
            }
            _ => break,
        }
    }
    first
}

#[cfg(test)]
#[path = "region_test.rs"]
mod tests;
