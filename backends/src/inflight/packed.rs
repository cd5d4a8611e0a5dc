//! The record of a packed ring (vhost-user document, "Inflight I/O tracking").
//!
//! The ring's descriptors are gone once it has wrapped, so the record keeps copies of those in
//! flight, in lists of entries; the other entries are in a list of free ones. An entry moves from
//! one to the other at one store, and the successor of a killed backend undoes or finishes a step
//! that was half done:
//!
//! ```text
//! take       entries, counter, inflight = 1, free_head       undone, until
//!            old_free_head = free_head
//! (execute)
//! completing free_head, used position                        undone, until
//! (used descriptors, the first one's flags last)
//! completed  inflight = 0                                    finished, until
//!            old_free_head = free_head, old used position = used position
//! ```
//!
//! Both used positions are in one word and stored together. If a ring was being completed,
//! the flags of its first descriptor say at which of the two it stands: they were the
//! driver's before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

use super::layout::{ENTRY_INFLIGHT, HEADER_VERSION, PACKED, VERSION};
use super::{InflightError, Region, Shape};
use crate::packed::{Descriptor, OWNER, Position};

/// Where the fields of `struct QueueRegionPacked` are, in bytes.
const HEADER_DESC_NUM: usize = 10;
const HEADER_FREE_HEAD: usize = 12;
const HEADER_OLD_FREE_HEAD: usize = 14;
/// Four fields: used_idx, old_used_idx, and both wrap counters of a byte each.
const HEADER_USED: usize = 16;

/// Where the fields of `struct DescStatePacked` are, in bytes.
const ENTRY_NEXT: usize = 2;
const ENTRY_LAST: usize = 4;
const ENTRY_NUM: usize = 6;
const ENTRY_COUNTER: usize = 8;
const ENTRY_ID: usize = 16;
const ENTRY_FLAGS: usize = 18;
const ENTRY_LEN: usize = 20;
const ENTRY_ADDR: usize = 24;

/// The recorded state of a ring.
#[derive(Debug)]
pub struct Recovered {
    pub tracker: Tracker,
    /// First entries of the chains in flight, oldest first.
    pub left: Vec<u16>,
    pub used: Position,
}

/// One packed ring's part of the record, in use by this backend.
#[derive(Debug)]
pub struct Tracker {
    region: Arc<Region>,
    /// Where the ring's part begins.
    start: usize,
    /// Entries of the record.
    entries: u16,
    /// Orders the chains as they were taken.
    counter: u64,
}

impl Tracker {
    /// Takes over the record of ring `index`, which has `size` descriptors and, if the record is
    /// new, stands at `used`. `flags` reads the flags of one of the ring's descriptors.
    pub fn recover<E>(
        region: &Arc<Region>,
        index: usize,
        size: u16,
        used: Position,
        flags: impl FnOnce(u16) -> Result<u16, E>,
    ) -> Result<Result<Recovered, E>, InflightError> {
        let Shape {
            queues, size: room, ..
        } = region.shape;
        if index >= usize::from(queues) || size > room {
            return Err(InflightError::Room { size, queues, room });
        }
        let mut tracker = Tracker {
            region: Arc::clone(region),
            start: region.shape.stride() * index,
            entries: room,
            counter: 0,
        };
        let version = tracker.header(HEADER_VERSION)?;
        if version == 0 {
            tracker.initialise(used)?;
            let left = Vec::new();
            return Ok(Ok(Recovered {
                tracker,
                left,
                used,
            }));
        }
        let entries = tracker.header(HEADER_DESC_NUM)?;
        if version != VERSION || entries != room {
            return Err(InflightError::Unknown {
                version,
                entries,
                room,
            });
        }
        let (new, old) = tracker.positions()?;
        if new.index >= size || old.index >= size {
            return Err(InflightError::Corrupt);
        }
        let used = if new == old {
            old
        } else {
            match flags(old.index) {
                Ok(flags) if flags & OWNER == old.available() => old,
                Ok(_) => new,
                Err(error) => return Ok(Err(error)),
            }
        };
        tracker.settle(used == new && new != old, used)?;
        let left = tracker.collect(size)?;
        Ok(Ok(Recovered {
            tracker,
            left,
            used,
        }))
    }

    /// Makes the record one of this ring. The version comes last: until then it is a new one.
    fn initialise(&self, used: Position) -> Result<(), InflightError> {
        for entry in 0..self.entries {
            self.set_in_flight(entry, 0)?;
            self.set(entry, ENTRY_NEXT, entry.wrapping_add(1))?;
        }
        self.set_header(HEADER_DESC_NUM, self.entries)?;
        self.set_header(HEADER_FREE_HEAD, 0)?;
        self.set_header(HEADER_OLD_FREE_HEAD, 0)?;
        self.set_positions(used, used)?;
        self.set_header(HEADER_VERSION, VERSION)
    }

    /// Finishes a step that was half done, or undoes it. To be killed here does no harm: the
    /// same is done again.
    fn settle(&self, finish: bool, used: Position) -> Result<(), InflightError> {
        let from = if finish {
            HEADER_FREE_HEAD
        } else {
            HEADER_OLD_FREE_HEAD
        };
        let head = self.header(from)?;
        // Free entries are not in flight, whatever they say. The list is as long as there are
        // entries not in flight; one that does not end is no list.
        let mut entry = head;
        for _ in 0..self.entries {
            if entry >= self.entries {
                break;
            }
            self.set_in_flight(entry, 0)?;
            entry = self.get(entry, ENTRY_NEXT)?;
        }
        if finish {
            self.set_header(HEADER_OLD_FREE_HEAD, head)?;
        } else {
            self.set_header(HEADER_FREE_HEAD, head)?;
        }
        self.set_positions(used, used)
    }

    /// Finds the chains in flight, in the order in which they were taken.
    fn collect(&mut self, size: u16) -> Result<Vec<u16>, InflightError> {
        let mut found = Vec::new();
        let mut slots = 0;
        for entry in 0..self.entries {
            let at = self.entry(entry, ENTRY_INFLIGHT);
            if self.region.load::<AtomicU8>(at)? == 1 {
                let at = self.entry(entry, ENTRY_COUNTER);
                found.push((self.region.load::<AtomicU64>(at)?, entry));
                slots += usize::from(self.slots(entry)?);
            }
        }
        if slots > usize::from(size) {
            return Err(InflightError::Corrupt);
        }
        found.sort_unstable();
        self.counter = found.last().map_or(0, |(last, _)| last.wrapping_add(1));
        Ok(found.into_iter().map(|(_, entry)| entry).collect())
    }

    /// A chain has been taken: its first entry.
    pub fn take(&mut self, slots: &[Descriptor]) -> Result<u16, InflightError> {
        let first = self.header(HEADER_FREE_HEAD)?;
        let (mut entry, mut last) = (first, first);
        for descriptor in slots {
            if entry >= self.entries {
                return Err(InflightError::Corrupt);
            }
            self.set(entry, ENTRY_ID, descriptor.id)?;
            self.set(entry, ENTRY_FLAGS, descriptor.flags)?;
            let at = self.entry(entry, ENTRY_LEN);
            self.region.store::<AtomicU32>(at, descriptor.len)?;
            let at = self.entry(entry, ENTRY_ADDR);
            self.region.store::<AtomicU64>(at, descriptor.addr)?;
            last = entry;
            entry = self.get(entry, ENTRY_NEXT)?;
        }
        self.set(first, ENTRY_LAST, last)?;
        self.set(first, ENTRY_NUM, slots.len() as u16)?;
        let at = self.entry(first, ENTRY_COUNTER);
        self.region.store::<AtomicU64>(at, self.counter)?;
        self.counter = self.counter.wrapping_add(1);
        self.set_in_flight(first, 1)?;
        self.set_header(HEADER_FREE_HEAD, entry)?;
        self.set_header(HEADER_OLD_FREE_HEAD, entry)?;
        Ok(first)
    }

    /// The chain goes back to where it came from, not executed.
    pub fn put_back(&self, entry: u16) -> Result<(), InflightError> {
        self.free(entry)?;
        self.set_header(HEADER_OLD_FREE_HEAD, entry)?;
        self.set_in_flight(entry, 0)
    }

    /// The chains are about to be put into the ring, which then stands at `used`.
    pub fn completing(&self, chains: &[u16], used: Position) -> Result<(), InflightError> {
        for entry in chains {
            self.free(*entry)?;
        }
        let (old, _) = self.positions()?;
        self.set_positions(used, old)
    }

    /// The chains are in the ring.
    pub fn completed(&self, chains: &[u16], used: Position) -> Result<(), InflightError> {
        for entry in chains {
            self.set_in_flight(*entry, 0)?;
        }
        let head = self.header(HEADER_FREE_HEAD)?;
        self.set_header(HEADER_OLD_FREE_HEAD, head)?;
        self.set_positions(used, used)
    }

    /// Puts a chain's entries before the free ones.
    fn free(&self, entry: u16) -> Result<(), InflightError> {
        let head = self.header(HEADER_FREE_HEAD)?;
        let last = self.get(entry, ENTRY_LAST)?;
        if last >= self.entries {
            return Err(InflightError::Corrupt);
        }
        self.set(last, ENTRY_NEXT, head)?;
        self.set_header(HEADER_FREE_HEAD, entry)
    }

    /// How many descriptors the chain at `entry` has in the ring.
    pub fn slots(&self, entry: u16) -> Result<u16, InflightError> {
        let slots = self.get(entry, ENTRY_NUM)?;
        if slots == 0 || slots > self.entries {
            return Err(InflightError::Corrupt);
        }
        Ok(slots)
    }

    /// The descriptors of the chain at `entry`.
    pub fn descriptors(&self, entry: u16) -> Result<Vec<Descriptor>, InflightError> {
        let mut found = Vec::new();
        let mut at = entry;
        for _ in 0..self.slots(entry)? {
            if at >= self.entries {
                return Err(InflightError::Corrupt);
            }
            found.push(Descriptor {
                addr: self.region.load::<AtomicU64>(self.entry(at, ENTRY_ADDR))?,
                len: self.region.load::<AtomicU32>(self.entry(at, ENTRY_LEN))?,
                id: self.get(at, ENTRY_ID)?,
                flags: self.get(at, ENTRY_FLAGS)?,
            });
            at = self.get(at, ENTRY_NEXT)?;
        }
        Ok(found)
    }

    fn entry(&self, entry: u16, field: usize) -> usize {
        self.start + PACKED.header + PACKED.entry * usize::from(entry) + field
    }

    fn get(&self, entry: u16, field: usize) -> Result<u16, InflightError> {
        self.region.load::<AtomicU16>(self.entry(entry, field))
    }

    fn set(&self, entry: u16, field: usize, value: u16) -> Result<(), InflightError> {
        self.region
            .store::<AtomicU16>(self.entry(entry, field), value)
    }

    fn set_in_flight(&self, entry: u16, value: u8) -> Result<(), InflightError> {
        self.region
            .store::<AtomicU8>(self.entry(entry, ENTRY_INFLIGHT), value)
    }

    fn header(&self, field: usize) -> Result<u16, InflightError> {
        self.region.load::<AtomicU16>(self.start + field)
    }

    fn set_header(&self, field: usize, value: u16) -> Result<(), InflightError> {
        self.region.store::<AtomicU16>(self.start + field, value)
    }

    /// The used position and the old one.
    fn positions(&self) -> Result<(Position, Position), InflightError> {
        let word = self.region.load::<AtomicU64>(self.start + HEADER_USED)?;
        let [a, b, c, d, wrap, old_wrap, ..] = word.to_ne_bytes();
        let position = |index, wrap| Position {
            index: u16::from_ne_bytes(index),
            wrap: wrap != 0,
        };
        Ok((position([a, b], wrap), position([c, d], old_wrap)))
    }

    fn set_positions(&self, new: Position, old: Position) -> Result<(), InflightError> {
        let [a, b] = new.index.to_ne_bytes();
        let [c, d] = old.index.to_ne_bytes();
        let bytes = [a, b, c, d, new.wrap.into(), old.wrap.into(), 0, 0];
        self.region
            .store::<AtomicU64>(self.start + HEADER_USED, u64::from_ne_bytes(bytes))
    }
}

#[cfg(test)]
#[path = "packed_step_test.rs"]
mod step_tests;
