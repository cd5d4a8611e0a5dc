//! All that an address space maps, as ranges of equal rights.
//!
//! The guest's tables are not trusted: they may lead in circles, or map one table
//! at a million places. The work is bounded by [`Limits`], and the target of a run
//! of equal entries is read once. (Linux repeats tables that way by design, for
//! its ESPFIX stacks and KASAN's shadow.)

use std::ops::ControlFlow::{self, Break, Continue};

use super::bit;
use super::entry::{Kind, Step};
use super::mode::Mode;
use super::space::{ALL, AddressSpace, Rights};
use crate::address::PhysAddr;
use crate::error::TargetError;

/// Neighbouring pages of one size with equal rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: u64,
    /// The last byte.
    pub last: u64,
    pub rights: Rights,
    /// Kept in the TLB when CR3 changes.
    pub global: bool,
    pub page_size: u64,
}

/// A piece of the address space, in the order of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    Span(Span),
    /// The mappings right before, as long as a `times`th of this, are repeated,
    /// by further entries for the same table.
    Repeat {
        start: u64,
        last: u64,
        times: u64,
    },
}

/// How much work may be done.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Tables that are read.
    pub tables: usize,
    pub rows: usize,
}

/// The result.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    pub rows: Vec<Row>,
    /// Where a limit ended it; from there on, nothing is known.
    pub stopped_at: Option<u64>,
    /// Tables that are no RAM.
    pub unreadable: u64,
    /// Present entries with reserved bits, which the processor would not use.
    pub reserved: u64,
}

impl AddressSpace {
    /// The mappings from `first` to `last`. Pages and tables that reach across
    /// these are in it as a whole. Empty without paging.
    pub fn ranges(
        &self,
        (first, last): (u64, u64),
        limits: Limits,
        read: impl FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>,
    ) -> Ranges {
        let mut scan = Scan {
            space: self,
            first,
            last,
            limits,
            read,
            open: None,
            found: Ranges::default(),
        };
        if self.mode != Mode::Off {
            let root = self.root & self.mode.root_mask();
            let complete = scan.table(self.mode.top(), root, 0, ALL);
            if complete.is_continue() {
                let _ = scan.close();
            }
        }
        scan.found
    }

    /// The address that a processor means by the low bits of it.
    fn canonical(&self, addr: u64) -> u64 {
        match self.mode.address_bits() {
            32 => addr,
            bits => ((addr << (64 - bits)) as i64 >> (64 - bits)) as u64,
        }
    }
}

struct Scan<'a, R> {
    space: &'a AddressSpace,
    first: u64,
    last: u64,
    limits: Limits,
    read: R,
    /// The span that the next page may belong to.
    open: Option<Span>,
    found: Ranges,
}

impl<R: FnMut(PhysAddr, &mut [u8]) -> Result<(), TargetError>> Scan<'_, R> {
    /// The mappings of the table of `level` at `table`, which translates from
    /// `base` on. Breaks at a limit.
    fn table(&mut self, level: u8, table: u64, base: u64, rights: Rights) -> ControlFlow<()> {
        let mode = self.space.mode;
        if self.limits.tables == 0 {
            return self.stop(self.space.canonical(base));
        }
        self.limits.tables -= 1;
        let Some(entries) = self.entries(level, table) else {
            return Continue(());
        };
        let size = 1 << mode.shift(level);
        let mut index = 0;
        while let Some(&entry) = entries.get(index) {
            let offset = base + index as u64 * size;
            let start = self.space.canonical(offset);
            let last = start + (size - 1);
            index += 1;
            if last < self.first || start > self.last {
                continue;
            }
            let step = Step {
                level,
                index: index as u64 - 1,
                at: PhysAddr(table),
                entry,
            };
            let kind = self.kind(&step);
            let mut rights = rights;
            if mode.has_rights(level) {
                rights = rights.and(entry, self.space.no_execute);
            }
            match kind {
                Kind::NotPresent => {}
                Kind::Page(page_size) => self.page(Span {
                    start,
                    last,
                    rights,
                    global: entry & bit::GLOBAL != 0,
                    page_size,
                })?,
                Kind::Table => {
                    let rows = self.found.rows.len();
                    let next = entry & super::mode::ADDRESS;
                    self.table(level - 1, next, offset, rights)?;
                    let equal = self.equal(&entries[index..], entry, last, size);
                    index += equal as usize;
                    self.repeat(rows, (start, last), equal)?;
                }
            }
        }
        Continue(())
    }

    fn entries(&mut self, level: u8, table: u64) -> Option<Vec<u64>> {
        let size = self.space.mode.entry_size();
        let mut bytes = vec![0; self.space.mode.entries(level) as usize * size];
        if (self.read)(PhysAddr(table), &mut bytes).is_err() {
            self.found.unreadable += 1;
            return None;
        }
        let entry = |bytes: &[u8]| {
            let mut entry = [0; 8];
            entry[..size].copy_from_slice(bytes);
            u64::from_le_bytes(entry)
        };
        Some(bytes.chunks_exact(size).map(entry).collect())
    }

    fn kind(&mut self, step: &Step) -> Kind {
        let kind = step.kind(self.space);
        if kind != Kind::NotPresent && self.space.inspect(step.level, step.entry).is_err() {
            self.found.reserved += 1;
            return Kind::NotPresent;
        }
        kind
    }

    /// How many of `entries`, which translate from behind `last` on, lead where
    /// `entry` does. Those of the other half of the address space do not count.
    fn equal(&self, entries: &[u64], entry: u64, last: u64, size: u64) -> u64 {
        let room = (self.last.saturating_sub(last)) / size;
        let half = (1 << (self.space.mode.address_bits() - 1)) - 1;
        let room = match last <= half {
            true => room.min((half - last) / size),
            false => room,
        };
        let same = |other: &&u64| (**other ^ entry) & !bit::ACCESSED == 0;
        (entries.iter().take_while(same).count() as u64).min(room)
    }

    fn page(&mut self, page: Span) -> ControlFlow<()> {
        if let Some(open) = &mut self.open
            && open.last.checked_add(1) == Some(page.start)
            && (open.rights, open.global, open.page_size)
                == (page.rights, page.global, page.page_size)
        {
            open.last = page.last;
            return Continue(());
        }
        self.close()?;
        self.open = Some(page);
        Continue(())
    }

    /// `times` more tables like the one that mapped `start` to `last`, before
    /// which there were `rows` rows.
    fn repeat(&mut self, rows: usize, (start, last): (u64, u64), times: u64) -> ControlFlow<()> {
        if times == 0 {
            return Continue(());
        }
        let end = last + times * (last - start + 1);
        let unchanged = rows == self.found.rows.len();
        match &mut self.open {
            // One span all over: it continues.
            Some(open) if unchanged && open.start <= start && open.last == last => {
                open.last = end;
                Continue(())
            }
            // Nothing in it.
            open if unchanged && open.is_none_or(|open| open.last < start) => Continue(()),
            _ => {
                self.close()?;
                self.push(Row::Repeat {
                    start: last + 1,
                    last: end,
                    times,
                })
            }
        }
    }

    fn close(&mut self) -> ControlFlow<()> {
        match self.open.take() {
            Some(span) => self.push(Row::Span(span)),
            None => Continue(()),
        }
    }

    fn push(&mut self, row: Row) -> ControlFlow<()> {
        if self.found.rows.len() == self.limits.rows {
            let (Row::Span(Span { start, .. }) | Row::Repeat { start, .. }) = row;
            return self.stop(start);
        }
        self.found.rows.push(row);
        Continue(())
    }

    fn stop(&mut self, at: u64) -> ControlFlow<()> {
        // The open span is known.
        if let Some(span) = self.open.take().filter(|span| span.start < at)
            && self.found.rows.len() < self.limits.rows
        {
            self.found.rows.push(Row::Span(span));
        }
        self.found.stopped_at = Some(at);
        Break(())
    }
}

#[cfg(test)]
#[path = "ranges_test.rs"]
mod tests;
