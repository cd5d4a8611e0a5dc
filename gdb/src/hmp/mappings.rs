//! The mappings of page tables as QEMU's monitor lists them with `info mem`.
//!
//! pwndbg and gef read it. `monitor pagetable` says more.

use std::fmt::{self, Write};

use crate::address::PhysAddr;
use crate::error::TargetError;
use crate::paging::{AddressSpace, Limits, Mode, Row};

const LIMITS: Limits = Limits {
    tables: 200_000,
    rows: 10_000,
};

/// Most lines.
const MOST: usize = 20_000;

/// Neighbouring addresses with the same rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    /// The last byte.
    last: u64,
    user: bool,
    write: bool,
}

/// The mappings of an address space of which `read` reads physical memory.
pub fn write_mappings(
    out: &mut dyn Write,
    space: &AddressSpace,
    read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
) -> fmt::Result {
    if space.mode == Mode::Off {
        return writeln!(out, "PG disabled");
    }
    let ranges = space.ranges((0, u64::MAX), LIMITS, read);
    for mapping in merged(&ranges.rows) {
        let Mapping { start, last, .. } = mapping;
        let flag = |set, letter| if set { letter } else { '-' };
        writeln!(
            out,
            "{start:016x}-{:016x} {:016x} {}r{}",
            last.wrapping_add(1),
            (last - start).wrapping_add(1),
            flag(mapping.user, 'u'),
            flag(mapping.write, 'w')
        )?;
    }
    Ok(())
}

fn merged(rows: &[Row]) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for row in rows {
        match *row {
            Row::Span(span) => push(
                &mut mappings,
                Mapping {
                    start: span.start,
                    last: span.last,
                    user: span.rights.user,
                    write: span.rights.write,
                },
            ),
            Row::Repeat { start, last, times } => repeat(&mut mappings, start, last, times),
        }
        if mappings.len() >= MOST {
            break;
        }
    }
    mappings.truncate(MOST);
    mappings
}

/// Joins it to the one before, if it begins where that ends.
fn push(mappings: &mut Vec<Mapping>, next: Mapping) {
    match mappings.last_mut() {
        Some(open)
            if open.last.checked_add(1) == Some(next.start)
                && (open.user, open.write) == (next.user, next.write) =>
        {
            open.last = next.last;
        }
        _ => mappings.push(next),
    }
}

/// Repeats the mapping right before `start` as often as it fits.
fn repeat(mappings: &mut Vec<Mapping>, start: u64, last: u64, times: u64) {
    let len = (last - start + 1) / times;
    let from = start - len;
    let piece: Vec<_> = mappings
        .iter()
        .filter(|mapping| mapping.last >= from)
        .map(|mapping| Mapping {
            start: mapping.start.max(from),
            ..*mapping
        })
        .collect();
    if let [whole] = piece[..]
        && (whole.start, whole.last) == (from, start - 1)
    {
        return push(
            mappings,
            Mapping {
                start,
                last,
                ..whole
            },
        );
    }
    for n in 1..=times {
        for mapping in &piece {
            let moved = Mapping {
                start: mapping.start + n * len,
                last: mapping.last + n * len,
                ..*mapping
            };
            push(mappings, moved);
        }
        if mappings.len() >= MOST {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paging::{Rights, Span};

    fn span(start: u64, last: u64, write: bool, user: bool) -> Row {
        Row::Span(Span {
            start,
            last,
            rights: Rights {
                write,
                user,
                execute: false,
            },
            global: false,
            page_size: 0x1000,
        })
    }

    fn shown(rows: &[Row]) -> Vec<(u64, u64, bool)> {
        let mappings = merged(rows);
        let shown = mappings.iter();
        shown
            .map(|mapping| (mapping.start, mapping.last, mapping.write))
            .collect()
    }

    #[test]
    fn neighbours_with_the_same_rights_are_one() {
        let rows = [
            span(0x1000, 0x1fff, true, false),
            span(0x2000, 0x2fff, true, false),
            span(0x3000, 0x3fff, false, false),
            span(0x5000, 0x5fff, false, false),
        ];
        let expected = [
            (0x1000, 0x2fff, true),
            (0x3000, 0x3fff, false),
            (0x5000, 0x5fff, false),
        ];
        assert_eq!(shown(&rows), expected);
        let top = [span(u64::MAX - 0xfff, u64::MAX, true, false)];
        assert_eq!(shown(&top), [(u64::MAX - 0xfff, u64::MAX, true)]);
    }

    #[test]
    fn what_is_repeated_is_listed_again() {
        let repeat = |times| Row::Repeat {
            start: 0x8000,
            last: 0x8000 + times * 0x4000 - 1,
            times,
        };
        let rows = [span(0x5000, 0x5fff, true, false), repeat(2)];
        let expected = [
            (0x5000, 0x5fff, true),
            (0x9000, 0x9fff, true),
            (0xd000, 0xdfff, true),
        ];
        assert_eq!(shown(&rows), expected);
        // A piece that is full joins with its repetitions.
        let rows = [span(0x3000, 0x7fff, true, false), repeat(2)];
        assert_eq!(shown(&rows), [(0x3000, 0xffff, true)]);
        assert_eq!(shown(&[rows[0], repeat(1 << 40)]).len(), 1);
        let holes = [span(0x5000, 0x5fff, true, false), repeat(1 << 40)];
        assert_eq!(shown(&holes).len(), MOST);
    }
}
