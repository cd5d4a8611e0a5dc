//! Looks into a packed virtqueue (virtio 1.4, section 2.8) while others use it.
//!
//! Its one ring does not say where driver and device stand: the looks follow them both, from the
//! base that the ring starts at. A chain that was made available and used between two looks has
//! left its id alone behind, and not how many descriptors it had.

use super::look::{Look, Seen, Waiting, used};
use crate::follow::{PackedRing, Position, Used};

/// How far a ring has been looked at.
#[derive(Debug, Default)]
pub struct Packed {
    size: u16,
    /// The device may tell of the last chain of several that it has used (VIRTIO_F_IN_ORDER).
    is_in_order: bool,
    next_available: Position,
    next_used: Position,
    waiting: Waiting,
    /// The id of a chain that was used before it was seen, the rest of which may still stand
    /// behind it.
    missed: Option<u16>,
}

impl Packed {
    /// The ring starts at this base: the driver's place in the lower half, the device's in the
    /// upper.
    pub fn start(size: u16, base: u32, is_in_order: bool) -> Self {
        let [next_available, next_used] = Position::of_base(base, size);
        Self {
            size,
            is_in_order,
            next_available,
            next_used,
            waiting: Waiting::default(),
            missed: None,
        }
    }

    /// What the driver has made available and the device has used.
    pub fn look(&mut self, ring: &PackedRing<'_>, look: &Look<'_>) -> Vec<Seen> {
        let mut seen = Vec::new();
        // Twice: a slot that is free again may have the next chain. Bounded, as both may run on.
        for _ in 0..2 {
            for _ in 0..self.size {
                if !self.take_available(ring, look, &mut seen) {
                    break;
                }
            }
            for _ in 0..self.size {
                if !self.take_used(ring, &mut seen) {
                    break;
                }
            }
        }
        seen
    }

    fn take_available(
        &mut self,
        ring: &PackedRing<'_>,
        look: &Look<'_>,
        seen: &mut Vec<Seen>,
    ) -> bool {
        let free = u32::from(self.size).saturating_sub(self.waiting.descriptors()) as u16;
        if free == 0 || !ring.is_available(self.next_available) {
            return false;
        }
        let chain = ring.chain(look.memory, self.next_available, free);
        let count = chain.descriptors;
        self.next_available.advance(count, self.size);
        if self.missed.take() == Some(chain.id) {
            // The rest of a chain that is used already.
            self.next_used = self.next_available;
            return true;
        }
        let chain = look.chain(chain);
        self.waiting.push(chain.id, count, chain.clone());
        seen.push(Seen::Available(chain));
        true
    }

    fn take_used(&mut self, ring: &PackedRing<'_>, seen: &mut Vec<Seen>) -> bool {
        if !ring.is_used(self.next_used) {
            return false;
        }
        let element = ring.used(self.next_used);
        let chains = used(&mut self.waiting, &element, self.is_in_order);
        if chains.is_empty() {
            return self.miss(element, seen);
        }
        for (count, chain) in chains {
            self.next_used.advance(count, self.size);
            seen.push(chain);
        }
        true
    }

    /// A chain that was used before anybody saw it. It can only be the next of the driver's where
    /// all others are known to be used.
    fn miss(&mut self, used: Used, seen: &mut Vec<Seen>) -> bool {
        if !self.waiting.is_empty() || self.next_used != self.next_available {
            return false;
        }
        let id = used.id as u16;
        self.next_used.advance(1, self.size);
        self.next_available = self.next_used;
        self.missed = Some(id);
        seen.push(Seen::Used(id, None, used.len));
        true
    }
}

#[cfg(test)]
#[path = "packed_test.rs"]
mod tests;
