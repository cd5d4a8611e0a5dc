//! Looks into a packed virtqueue (virtio 1.4, section 2.8) while others use it.
//!
//! Its one ring does not say where driver and device stand: the looks follow them both, from the
//! base that the ring starts at. A chain that was made available and used between two looks has
//! left its id alone behind, and not how many descriptors it had.

use std::collections::VecDeque;

use super::split::{Addresses, Chain, Look, Seen};
use crate::interpose::Memory;
use crate::trace::record::Buffer;

const DESCRIPTOR: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Most descriptors of an indirect table that are read.
const MOST_INDIRECT: u32 = 1024;

/// How far a ring has been looked at.
#[derive(Debug, Default)]
pub struct Packed {
    pub addresses: Addresses,
    pub size: u16,
    /// The device may tell of the last chain of several that it has used (VIRTIO_F_IN_ORDER).
    pub is_in_order: bool,
    next_available: Place,
    next_used: Place,
    /// In the order in which they were made available.
    waiting: VecDeque<Waiting>,
    /// The id of a chain that was used before it was seen, the rest of which may still stand
    /// behind it.
    missed: Option<u16>,
}

#[derive(Debug)]
struct Waiting {
    chain: Chain,
    /// The descriptors that it takes of the ring.
    slots: u16,
}

/// A slot of the ring and the wrap counter of who comes there next (section 2.8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    slot: u16,
    wrap: bool,
}

/// A descriptor (section 2.8.13).
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    address: u64,
    len: u32,
    id: u16,
    flags: u16,
}

impl Place {
    /// As the vhost-user document has it: the wrap counter is the highest bit.
    fn of_base(base: u16) -> Self {
        Self {
            slot: base & 0x7fff,
            wrap: base & 0x8000 != 0,
        }
    }

    fn advance(&mut self, slots: u16, size: u16) {
        let next = u32::from(self.slot) + u32::from(slots);
        self.wrap ^= next >= u32::from(size);
        self.slot = next.checked_rem(size.into()).unwrap_or_default() as u16;
    }
}

impl Descriptor {
    fn parse(bytes: [u8; DESCRIPTOR as usize]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        Self {
            address: whole as u64,
            len: (whole >> 64) as u32,
            id: (whole >> 96) as u16,
            flags: (whole >> 112) as u16,
        }
    }

    fn is_available(&self, wrap: bool) -> bool {
        (self.flags & AVAIL != 0, self.flags & USED != 0) == (wrap, !wrap)
    }

    fn is_used(&self, wrap: bool) -> bool {
        (self.flags & AVAIL != 0, self.flags & USED != 0) == (wrap, wrap)
    }

    fn buffer(&self) -> Buffer {
        Buffer {
            address: self.address,
            len: self.len,
            is_writable: self.flags & WRITE != 0,
        }
    }
}

impl Packed {
    /// The ring starts at this base: the driver's place in the lower half, the device's in the
    /// upper.
    pub fn set_base(&mut self, base: u32) {
        self.next_available = Place::of_base(base as u16);
        self.next_used = Place::of_base((base >> 16) as u16);
        self.waiting.clear();
        self.missed = None;
    }

    /// What the driver has made available and the device has used.
    pub fn look(&mut self, look: &Look<'_>) -> Vec<Seen> {
        let mut seen = Vec::new();
        // Twice: a slot that is free again may have the next chain. Bounded, as both may run on.
        for _ in 0..2 {
            for _ in 0..self.size {
                if !self.take_available(look, &mut seen) {
                    break;
                }
            }
            for _ in 0..self.size {
                if !self.take_used(look.memory, &mut seen) {
                    break;
                }
            }
        }
        seen
    }

    fn read(&self, memory: &Memory, slot: u16) -> Option<Descriptor> {
        let offset = DESCRIPTOR * u64::from(slot.checked_rem(self.size)?);
        let address = self.addresses.descriptors.checked_add(offset)?;
        memory.user(address).map(Descriptor::parse)
    }

    fn take_available(&mut self, look: &Look<'_>, seen: &mut Vec<Seen>) -> bool {
        let Some((chain, slots)) = self.available_chain(look) else {
            return false;
        };
        self.next_available.advance(slots, self.size);
        if self.missed.take() == Some(chain.head) {
            // The rest of a chain that is used already.
            self.next_used = self.next_available;
            return true;
        }
        seen.push(Seen::Available(chain.clone()));
        self.waiting.push_back(Waiting { chain, slots });
        true
    }

    /// The chain at the driver's place, and how many slots it takes. The id is in its last
    /// descriptor.
    fn available_chain(&self, look: &Look<'_>) -> Option<(Chain, u16)> {
        let Place { slot, wrap } = self.next_available;
        let first = self
            .read(look.memory, slot)
            .filter(|d| d.is_available(wrap))?;
        let taken: u32 = self
            .waiting
            .iter()
            .map(|waiting| u32::from(waiting.slots))
            .sum();
        let free = u32::from(self.size).saturating_sub(taken) as u16;
        let (mut last, mut slots) = (first, 1);
        let mut buffers = Vec::new();
        loop {
            match last.flags & INDIRECT {
                0 => buffers.push(last.buffer()),
                _ => buffers.extend(indirect(&last, look.memory)),
            }
            if last.flags & NEXT == 0 || slots >= free {
                break;
            }
            last = self.read(look.memory, slot.checked_add(slots)?)?;
            slots += 1;
        }
        let chain = Chain {
            head: last.id,
            what: (look.describe)(&buffers),
            buffers,
            time: look.time,
        };
        (slots <= free).then_some((chain, slots))
    }

    fn take_used(&mut self, memory: &Memory, seen: &mut Vec<Seen>) -> bool {
        let Place { slot, wrap } = self.next_used;
        let Some(used) = self.read(memory, slot).filter(|d| d.is_used(wrap)) else {
            return false;
        };
        // Only of a buffer that the device may write (section 2.8.4).
        let written = if used.flags & WRITE != 0 { used.len } else { 0 };
        let is_it = |waiting: &Waiting| waiting.chain.head == used.id;
        let Some(place) = self.waiting.iter().position(is_it) else {
            return self.miss(used.id, written, seen);
        };
        let first = if self.is_in_order { 0 } else { place };
        for Waiting { chain, slots } in self.waiting.drain(first..=place) {
            self.next_used.advance(slots, self.size);
            let written = if chain.head == used.id { written } else { 0 };
            seen.push(Seen::Used(chain.head, Some(chain), written));
        }
        true
    }

    /// A chain that was used before anybody saw it. It can only be the next of the driver's where
    /// all others are known to be used.
    fn miss(&mut self, id: u16, written: u32, seen: &mut Vec<Seen>) -> bool {
        if !self.waiting.is_empty() || self.next_used != self.next_available {
            return false;
        }
        self.next_used.advance(1, self.size);
        self.next_available = self.next_used;
        self.missed = Some(id);
        seen.push(Seen::Used(id, None, written));
        true
    }
}

/// The buffers of an indirect table, whose descriptors follow each other (section 2.8.7).
fn indirect(table: &Descriptor, memory: &Memory) -> Vec<Buffer> {
    let count = (table.len / DESCRIPTOR as u32).min(MOST_INDIRECT);
    let buffer = |index: u32| {
        let address = table.address.checked_add(DESCRIPTOR * u64::from(index))?;
        memory
            .guest(address)
            .map(|bytes| Descriptor::parse(bytes).buffer())
    };
    (0..count).map_while(buffer).collect()
}

#[cfg(test)]
#[path = "packed_test.rs"]
mod tests;
