//! Looks into a split virtqueue (virtio 1.4, section 2.7) while others use it.

use super::look::{Look, Seen, Waiting, used};
use crate::follow::SplitRing;

/// How far a ring has been looked at.
#[derive(Debug, Default)]
pub struct Split {
    size: u16,
    is_in_order: bool,
    next_available: u16,
    next_used: u16,
    /// Nobody has looked since the ring started.
    is_new: bool,
    waiting: Waiting,
}

impl Split {
    /// The ring starts with this chain.
    pub fn start(size: u16, base: u16, is_in_order: bool) -> Self {
        Self {
            size,
            is_in_order,
            next_available: base,
            next_used: base,
            is_new: true,
            waiting: Waiting::default(),
        }
    }

    /// What the driver has made available and the device has used. An id may come several times:
    /// it is made available again only when it has been used.
    pub fn look(&mut self, ring: &SplitRing<'_>, look: &Look<'_>) -> Vec<Seen> {
        // In this order: what is used by then was available before.
        let used = ring.used();
        let available = ring.available();
        // Behind its base while requests of an earlier backend are in flight.
        if std::mem::take(&mut self.is_new) && (used.wrapping_sub(self.next_used) as i16) < 0 {
            self.next_used = used;
        }
        self.next_used = self.at_most_a_round(self.next_used, used);
        self.next_available = self.at_most_a_round(self.next_available, available);
        let mut seen = Vec::new();
        while self.next_available != available || self.next_used != used {
            let before = seen.len();
            self.take_available(ring, look, available, &mut seen);
            self.take_used(ring, used, &mut seen);
            if seen.len() == before && !self.skip(ring, available, used, &mut seen) {
                break;
            }
        }
        seen
    }

    /// Who is further ahead than the ring is long has lost its place, or was not looked at.
    fn at_most_a_round(&self, next: u16, index: u16) -> u16 {
        match index.wrapping_sub(next) {
            ahead if ahead > self.size => index.wrapping_sub(self.size),
            _ => next,
        }
    }

    /// Up to a head that is in use still.
    fn take_available(
        &mut self,
        ring: &SplitRing<'_>,
        look: &Look<'_>,
        end: u16,
        seen: &mut Vec<Seen>,
    ) {
        while self.next_available != end {
            let head = ring.head(self.next_available);
            if self.waiting.has(head) {
                return;
            }
            let chain = look.chain(ring.chain(look.memory, head));
            // In a split ring, each chain takes one entry.
            self.waiting.push(head, 1, chain.clone());
            seen.push(Seen::Available(chain));
            self.next_available = self.next_available.wrapping_add(1);
        }
    }

    /// Up to a head that was not seen.
    fn take_used(&mut self, ring: &SplitRing<'_>, end: u16, seen: &mut Vec<Seen>) {
        while self.next_used != end {
            let element = ring.used_chain(self.next_used);
            let chains = used(&mut self.waiting, &element, self.is_in_order);
            if chains.is_empty() {
                return;
            }
            for (entries, chain) in chains {
                self.next_used = self.next_used.wrapping_add(entries);
                seen.push(chain);
            }
        }
    }

    /// Goes past what does not fit together: a chain that was used before anybody looked, or
    /// that is available twice.
    fn skip(
        &mut self,
        ring: &SplitRing<'_>,
        available: u16,
        used: u16,
        seen: &mut Vec<Seen>,
    ) -> bool {
        if self.next_used != used {
            let element = ring.used_chain(self.next_used);
            seen.push(Seen::Used(element.id as u16, None, element.len));
            self.next_used = self.next_used.wrapping_add(1);
            return true;
        }
        self.next_available != available
            && self.waiting.take(ring.head(self.next_available)).is_some()
    }
}

#[cfg(test)]
#[path = "split_test.rs"]
mod tests;
