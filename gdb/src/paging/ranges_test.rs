//! The scan against translations of single pages.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::target::VirtAddr;

const LIMITS: Limits = Limits {
    tables: 100,
    rows: 100,
};

/// Physical memory of 8-byte entries; absent tables are no RAM.
#[derive(Default)]
struct Memory(BTreeMap<u64, u64>);

impl Memory {
    fn put(&mut self, table: u64, index: u64, entry: u64) {
        for n in 0..512 {
            self.0.entry(table + n * 8).or_insert(0);
        }
        self.0.insert(table + index * 8, entry);
    }

    fn read(&self, at: PhysAddr, buf: &mut [u8]) -> Result<(), TargetError> {
        for (n, bytes) in buf.chunks_mut(8).enumerate() {
            let at = at.0 + n as u64 * 8;
            let entry = self.0.get(&at).ok_or(TargetError::NoRam(PhysAddr(at)))?;
            bytes.copy_from_slice(&entry.to_le_bytes());
        }
        Ok(())
    }

    fn ranges(&self, mode: Mode, limits: Limits) -> Ranges {
        space(mode).ranges((0, u64::MAX), limits, |at, buf| self.read(at, buf))
    }
}

fn space(mode: Mode) -> AddressSpace {
    AddressSpace {
        mode,
        root: 0x1000,
        no_execute: true,
    }
}

/// What a row is, without its rights.
fn shape(row: &Row) -> (u64, u64, u64) {
    match *row {
        Row::Span(span) => (span.start, span.last, 0),
        Row::Repeat { start, last, times } => (start, last, times),
    }
}

fn shapes(ranges: &Ranges) -> Vec<(u64, u64, u64)> {
    ranges.rows.iter().map(shape).collect()
}

const MIB2: u64 = 2 << 20;

#[test]
fn pages_merge_across_tables_but_not_with_other_sizes() {
    let mut memory = Memory::default();
    memory.put(0x1000, 0, 0x2003);
    memory.put(0x2000, 0, 0x3003);
    memory.put(0x3000, 0, 0x4003);
    memory.put(0x3000, 1, 0x5003);
    memory.put(0x3000, 2, 0x40_0083);
    memory.put(0x4000, 511, 0x9003);
    memory.put(0x5000, 0, 0x7003);
    memory.put(0x5000, 511, 0x7003);
    let ranges = memory.ranges(Mode::Level4, LIMITS);
    assert_eq!(
        shapes(&ranges),
        [
            (0x1f_f000, 0x20_0fff, 0),
            (0x3f_f000, 0x3f_ffff, 0),
            (0x40_0000, 0x5f_ffff, 0)
        ]
    );
}

#[test]
fn a_table_repeated_is_looked_at_once() {
    let mut memory = Memory::default();
    memory.put(0x1000, 0, 0x2003);
    memory.put(0x2000, 0, 0x3003);
    for n in 0..4 {
        // Accessed or not makes no difference.
        memory.put(0x3000, n, 0x4003 | (n & 1) << 5);
    }
    memory.put(0x4000, 1, 0x9003);
    memory.put(0x4000, 3, 0x9003);
    let limits = Limits {
        tables: 4,
        rows: 100,
    };
    assert_eq!(
        shapes(&memory.ranges(Mode::Level4, limits)),
        [
            (0x1000, 0x1fff, 0),
            (0x3000, 0x3fff, 0),
            (MIB2, 4 * MIB2 - 1, 3)
        ]
    );
    for n in 0..512 {
        memory.put(0x4000, n, 0x9003);
    }
    let ranges = memory.ranges(Mode::Level4, limits);
    assert_eq!(shapes(&ranges), [(0, 4 * MIB2 - 1, 0)], "one span all over");
    for n in 0..512 {
        memory.put(0x4000, n, 0);
    }
    assert_eq!(shapes(&memory.ranges(Mode::Level4, limits)), []);
}

#[test]
fn circles_end_at_a_limit() {
    let mut memory = Memory::default();
    for n in 0..512 {
        // No two neighbours are equal.
        memory.put(0x1000, n, 0x1003 | (!n & 1) << 2);
    }
    let ranges = memory.ranges(Mode::Level5, LIMITS);
    assert_eq!(
        ranges.stopped_at,
        Some(ranges.rows.last().map_or(0, |row| shape(row).1 + 1))
    );
    let limits = Limits {
        tables: 10_000,
        rows: 7,
    };
    let ranges = memory.ranges(Mode::Level5, limits);
    assert_eq!(ranges.rows.len(), 7);
    assert_eq!(ranges.stopped_at, Some(0x7000));
}

#[test]
fn both_halves_of_the_address_space_are_apart() {
    let mut memory = Memory::default();
    for n in [254, 255, 256, 257, 511] {
        memory.put(0x1000, n, 0x2003);
    }
    memory.put(0x2000, 0, 0x83);
    const TIB_HALF: u64 = 1 << 39;
    const GIB: u64 = 1 << 30;
    let high = 0xffff_8000_0000_0000;
    assert_eq!(
        shapes(&memory.ranges(Mode::Level4, LIMITS)),
        [
            (254 * TIB_HALF, 254 * TIB_HALF + GIB - 1, 0),
            (255 * TIB_HALF, 256 * TIB_HALF - 1, 1),
            (high, high + GIB - 1, 0),
            (high + TIB_HALF, high + 2 * TIB_HALF - 1, 1),
            (0xffff_ff80_0000_0000, 0xffff_ff80_3fff_ffff, 0),
        ]
    );
}

#[test]
fn what_is_malformed_is_counted() {
    let mut memory = Memory::default();
    memory.put(0x1000, 0, 0x2003);
    memory.put(0x1000, 1, 0x2083);
    memory.put(0x2000, 7, 0x7000_0003);
    let ranges = memory.ranges(Mode::Level4, LIMITS);
    assert_eq!((ranges.unreadable, ranges.reserved), (1, 1));
    assert_eq!(ranges.rows, []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every page that a walk finds is in a span of its rights, and nothing else.
    #[test]
    fn agrees_with_the_walk(
        entries in prop::collection::vec((1..6u64, 0..512u64, 1..6u64, 0..8u64), 1..60),
        addrs in prop::collection::vec((0..6u64, 0..6u64, 0..6u64, 0..6u64), 60),
    ) {
        let mut memory = Memory::default();
        let mut used = vec![0, 511];
        for (table, index, to, flags) in entries {
            used.push(index);
            memory.put(table << 12, index, to << 12 | 1 | flags << 1);
        }
        memory.put(0x1000, 0, 0x2007);
        let limits = Limits { tables: 1 << 12, rows: 1 << 16 };
        let ranges = memory.ranges(Mode::Level4, limits);
        prop_assume!(ranges.stopped_at.is_none());
        for (a, b, c, d) in addrs {
            let pick = |n: u64| used[n as usize % used.len()];
            let low = pick(a) << 39 | pick(b) << 30 | pick(c) << 21 | pick(d) << 12;
            let addr = space(Mode::Level4).canonical(low);
            let walked = space(Mode::Level4)
                .translate(VirtAddr(addr), |at, buf| memory.read(at, buf))
                .ok();
            prop_assert_eq!(find(&ranges, addr).map(|span| span.rights), walked.map(|t| t.rights));
        }
    }
}

/// The span of an address, looked up in what it repeats if need be.
fn find(ranges: &Ranges, mut addr: u64) -> Option<Span> {
    for row in ranges.rows.iter().rev() {
        match row {
            Row::Span(span) if (span.start..=span.last).contains(&addr) => return Some(*span),
            Row::Repeat { start, last, times } if (*start..=*last).contains(&addr) => {
                let each = (last - start + 1) / times;
                addr = start - each + (addr - start) % each;
            }
            _ => {}
        }
    }
    None
}
