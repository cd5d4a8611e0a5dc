//! The parts of a split virtqueue (virtio 1.4, section 2.7).

use super::area::Area;
use super::chain::{Chain, TableOrder};
use super::descriptor::DESCRIPTOR;
use super::{Addresses, MOST_DESCRIPTORS, Used};
use crate::interpose::Memory;

/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;

/// Of the available and the used ring, in bytes from its begin.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ENTRIES: usize = 4;

pub struct SplitRing<'a> {
    size: u16,
    table: Area<'a>,
    available: Area<'a>,
    used: Area<'a>,
}

impl<'a> SplitRing<'a> {
    /// `None` if it is not in memory as a whole, or no ring is of this size.
    pub fn at(memory: &'a Memory, addresses: &Addresses, size: u16) -> Option<Self> {
        if !(1..=MOST_DESCRIPTORS).contains(&size) {
            return None;
        }
        let count = usize::from(size);
        Some(Self {
            size,
            table: Area::at(memory, addresses.descriptors, DESCRIPTOR * count)?,
            available: Area::at(memory, addresses.driver, 6 + 2 * count)?,
            used: Area::at(memory, addresses.device, 6 + 8 * count)?,
        })
    }

    /// Where the driver makes the next chain available.
    pub fn available(&self) -> u16 {
        self.available.load(INDEX)
    }

    /// Where the device uses the next chain.
    pub fn used(&self) -> u16 {
        self.used.load(INDEX)
    }

    /// The first descriptor of the chain that was made available here.
    pub fn head(&self, index: u16) -> u16 {
        self.available.load(self.available_entry(index))
    }

    /// What the device says here of a chain that it has used.
    pub fn used_chain(&self, index: u16) -> Used {
        let whole = u64::from_le_bytes(self.used.get(self.used_entry(index)));
        Used {
            id: whole as u32,
            len: (whole >> 32) as u32,
        }
    }

    /// The chain that begins with this descriptor.
    pub fn chain(&self, memory: &Memory, head: u16) -> Chain {
        let mut chain = Chain {
            id: head,
            ..Chain::default()
        };
        let read = |index| self.table.get(DESCRIPTOR * usize::from(index));
        if let Some(table) = chain.follow(self.size, read, head) {
            chain.read_table(memory, &table, TableOrder::Linked);
        }
        chain
    }

    /// Whether the driver wants to hear of the chains that were used from here to there
    /// (section 2.7.7).
    pub fn wants_call(&self, from: u16, to: u16, has_event_idx: bool) -> bool {
        let new = to.wrapping_sub(from);
        if new == 0 {
            return false;
        }
        if !has_event_idx {
            return self.available.load(FLAGS) & NO_INTERRUPT == 0;
        }
        let event = self.available.load(self.available_end());
        to.wrapping_sub(event).wrapping_sub(1) < new
    }

    /// Becomes as the other is, with nothing from here on that a device has yet to take.
    pub fn copy_until(&self, other: &SplitRing<'_>, end: u16) {
        self.available.copy(&other.available);
        self.used.copy(&other.used);
        self.available.store(INDEX, end);
    }

    pub fn put_head(&self, index: u16, head: u16) {
        self.available.store(self.available_entry(index), head);
    }

    /// All before this is available.
    pub fn make_available(&self, index: u16) {
        self.available.store(INDEX, index);
    }

    pub fn put_used(&self, index: u16, used: Used) {
        let element = u64::from(used.id) | u64::from(used.len) << 32;
        self.used
            .put(self.used_entry(index), &element.to_le_bytes());
    }

    /// All before this is used.
    pub fn mark_used(&self, index: u16) {
        self.used.store(INDEX, index);
    }

    /// The driver is to tell of all that it makes available; with EVENT_IDX, of the chain here.
    pub fn ask_for_kicks(&self, next: Option<u16>) {
        match next {
            Some(index) => self.used.store(self.used_end(), index),
            None => self.used.store(FLAGS, 0),
        }
    }

    /// The device is to tell of all that it uses; with EVENT_IDX, of the chain here.
    pub fn ask_for_calls(&self, next: Option<u16>) {
        match next {
            Some(index) => self.available.store(self.available_end(), index),
            None => self.available.store(FLAGS, 0),
        }
    }

    fn available_entry(&self, index: u16) -> usize {
        ENTRIES + 2 * usize::from(index % self.size)
    }

    fn used_entry(&self, index: u16) -> usize {
        ENTRIES + 8 * usize::from(index % self.size)
    }

    /// Where used_event is.
    fn available_end(&self) -> usize {
        ENTRIES + 2 * usize::from(self.size)
    }

    /// Where avail_event is.
    fn used_end(&self) -> usize {
        ENTRIES + 8 * usize::from(self.size)
    }
}
