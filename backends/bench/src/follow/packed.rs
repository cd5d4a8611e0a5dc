//! The parts of a packed virtqueue (virtio 1.4, section 2.8).

use super::area::Area;
use super::chain::{Chain, TableOrder};
use super::descriptor::{DESCRIPTOR, Descriptor, INDIRECT, NEXT, WRITE};
use super::position::Position;
use super::{Addresses, MOST_DESCRIPTORS, Used};
use crate::interpose::Memory;

/// VIRTQ_DESC_F_AVAIL
const AVAIL: u16 = 1 << 7;
/// VIRTQ_DESC_F_USED
const USED: u16 = 1 << 15;
/// RING_EVENT_FLAGS_DISABLE and _DESC
const DISABLE: u16 = 1;
const SPECIFIC: u16 = 2;

pub struct PackedRing<'a> {
    size: u16,
    descriptors: Area<'a>,
    driver_event: Area<'a>,
    device_event: Area<'a>,
}

impl<'a> PackedRing<'a> {
    /// `None` if it is not in memory as a whole, or no ring is of this size.
    pub fn at(memory: &'a Memory, addresses: &Addresses, size: u16) -> Option<Self> {
        if !(1..=MOST_DESCRIPTORS).contains(&size) {
            return None;
        }
        let len = DESCRIPTOR * usize::from(size);
        Some(Self {
            size,
            descriptors: Area::at(memory, addresses.descriptors, len)?,
            driver_event: Area::at(memory, addresses.driver, 4)?,
            device_event: Area::at(memory, addresses.device, 4)?,
        })
    }

    /// Whether the driver has made the chain available that begins here (section 2.8.1).
    pub fn is_available(&self, position: Position) -> bool {
        self.turn(position) == (position.wrap(), !position.wrap())
    }

    /// Whether the device has used the chain that begins here.
    pub fn is_used(&self, position: Position) -> bool {
        self.turn(position) == (position.wrap(), position.wrap())
    }

    fn turn(&self, position: Position) -> (bool, bool) {
        let flags = self.descriptors.load(flags_at(position));
        (flags & AVAIL != 0, flags & USED != 0)
    }

    /// The chain that begins here, of `most` descriptors. The id is in its last one.
    pub fn chain(&self, memory: &Memory, mut position: Position, most: u16) -> Chain {
        let mut chain = Chain::default();
        while chain.descriptors < most {
            let descriptor = Descriptor::packed(self.descriptors.get(at(position)));
            chain.descriptors += 1;
            chain.id = descriptor.number;
            if descriptor.has(INDIRECT) {
                chain.read_table(memory, &descriptor, TableOrder::InSequence);
                return chain;
            }
            chain.push(&descriptor);
            if !descriptor.has(NEXT) {
                return chain;
            }
            position.advance(1, self.size);
        }
        chain.trouble = Some("it is longer than the ring".into());
        chain
    }

    /// What the device says here of a chain that it has used. A length is only one of a buffer
    /// that the device may write (section 2.8.4).
    pub fn used(&self, position: Position) -> Used {
        let descriptor = Descriptor::packed(self.descriptors.get(at(position)));
        Used {
            id: descriptor.number.into(),
            len: if descriptor.has(WRITE) {
                descriptor.len
            } else {
                0
            },
        }
    }

    /// Whether the driver wants to hear of `count` descriptors that were used from here on
    /// (section 2.8.14).
    pub fn wants_call(&self, mut from: Position, count: u16) -> bool {
        match self.driver_event.load(2) & 3 {
            DISABLE => false,
            SPECIFIC => {
                let event = Position::from_bits(self.driver_event.load(0), self.size);
                (0..count).any(|_| {
                    let is_it = from == event;
                    from.advance(1, self.size);
                    is_it
                })
            }
            _ => true,
        }
    }

    /// Becomes as the other is, with nothing from here on that a device has yet to take.
    pub fn copy_until(&self, other: &PackedRing<'_>, mut end: Position, free: u16) {
        self.descriptors.copy(&other.descriptors);
        for _ in 0..free {
            // As it was used a round ago.
            let flags = if end.wrap() { 0 } else { AVAIL | USED };
            self.descriptors.store(flags_at(end), flags);
            end.advance(1, self.size);
        }
    }

    /// Copies a chain from another ring. The first descriptor makes it available, and so comes
    /// last.
    pub fn make_available(&self, from: &PackedRing<'_>, first: Position, count: u16) {
        let mut position = first;
        for _ in 1..count {
            position.advance(1, self.size);
            let bytes: [u8; DESCRIPTOR] = from.descriptors.get(at(position));
            self.descriptors.put(at(position), &bytes);
        }
        let bytes: [u8; DESCRIPTOR] = from.descriptors.get(at(first));
        self.descriptors.put(at(first), &bytes[..14]);
        self.put_flags(from, first);
    }

    /// Copies from another ring that a chain is used: all but the address.
    pub fn mark_used(&self, from: &PackedRing<'_>, position: Position) {
        let bytes: [u8; 6] = from.descriptors.get(at(position) + 8);
        self.descriptors.put(at(position) + 8, &bytes);
        self.put_flags(from, position);
    }

    fn put_flags(&self, from: &PackedRing<'_>, position: Position) {
        let flags = from.descriptors.load(flags_at(position));
        self.descriptors.store(flags_at(position), flags);
    }

    /// The driver is to tell of all that it makes available.
    pub fn ask_for_kicks(&self) {
        self.device_event.put(0, &[0; 4]);
    }

    /// The device is to tell of all that it uses.
    pub fn ask_for_calls(&self) {
        self.driver_event.put(0, &[0; 4]);
    }
}

fn at(position: Position) -> usize {
    DESCRIPTOR * usize::from(position.index())
}

fn flags_at(position: Position) -> usize {
    at(position) + 14
}
