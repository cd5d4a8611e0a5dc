//! A split virtqueue (virtio 1.4, section 2.7).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::access::{load, publish, write};
use super::chain::{Chain, DESCRIPTOR, NEXT, RingError, WRITE, is_table};
use super::layout::{Layout, RingFault};
use crate::backend::trouble::Trouble;

/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;
/// Descriptors of one chain; more is a loop.
const MOST: usize = 1 << 16;

#[derive(Debug)]
pub struct SplitRing {
    layout: Layout,
    descriptors: GuestAddress,
    available: GuestAddress,
    used: GuestAddress,
    next: u16,
}

impl SplitRing {
    pub fn new(layout: Layout, base: u16) -> Self {
        let [descriptors, available, used] = layout.places;
        Self {
            layout,
            descriptors,
            available,
            used,
            next: base,
        }
    }

    /// The index of the available ring that is processed next.
    pub fn base(&self) -> u32 {
        self.next.into()
    }

    pub fn has_available(&self, memory: &GuestMemoryMmap) -> Result<bool, RingError> {
        let index: u16 = load(memory, self.available, 2)?;
        let pending = index.wrapping_sub(self.next);
        if pending > self.layout.size {
            let text = format!(
                "the available index is {index}, {pending} after {}, and the ring has {}",
                self.next, self.layout.size
            );
            return Err((Trouble::Index, text));
        }
        Ok(pending > 0)
    }

    pub fn pop(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, RingError> {
        if !self.has_available(memory)? {
            return Ok(None);
        }
        let slot = u64::from(self.next % self.layout.size);
        let head: u16 = load(memory, self.available, 4 + 2 * slot)?;
        let chain = self.read_chain(memory, head)?;
        self.next = self.next.wrapping_add(1);
        Ok(Some(chain))
    }

    fn read_chain(&self, memory: &GuestMemoryMmap, head: u16) -> Result<Chain, RingError> {
        let mut chain = Chain {
            id: head,
            ..Chain::default()
        };
        let (mut table, mut len, mut index) = (self.descriptors, self.layout.size, head);
        let mut is_inside = false;
        for _ in 0..MOST {
            if index >= len {
                let text = format!("descriptor {index} of a table of {len} (head {head})");
                return Err((Trouble::Descriptor, text));
            }
            let at = DESCRIPTOR * u64::from(index);
            let addr: u64 = load(memory, table, at)?;
            let bytes: u32 = load(memory, table, at + 8)?;
            let flags: u16 = load(memory, table, at + 12)?;
            let next: u16 = load(memory, table, at + 14)?;
            if is_table(flags, self.layout.indirect, is_inside)? {
                (table, index, is_inside) = (GuestAddress(addr), 0, true);
                len = u16::try_from(u64::from(bytes) / DESCRIPTOR).unwrap_or(u16::MAX);
                continue;
            }
            chain.push(memory, (GuestAddress(addr), bytes), flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                return Ok(chain);
            }
            index = next;
        }
        let text = format!("the chain from head {head} does not end");
        Err((Trouble::Descriptor, text))
    }

    pub fn push(
        &self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        len: u32,
        fault: Option<RingFault>,
    ) -> Result<bool, RingError> {
        let size = self.layout.size;
        let old: u16 = load(memory, self.used, 2)?;
        let (id, len) = match fault {
            Some(RingFault::IdTooLarge) => (u32::from(size) + 7, len),
            Some(RingFault::LengthTooLong) => (chain.id.into(), u32::MAX),
            _ => (chain.id.into(), len),
        };
        let count = match fault {
            Some(RingFault::UsedTwice) => 2,
            Some(RingFault::IndexJumps) => size.wrapping_mul(2) | 1,
            _ => 1,
        };
        for n in 0..count.min(2) {
            let slot = u64::from(old.wrapping_add(n) % size);
            write(memory, self.used, 4 + 8 * slot, &u32::to_le_bytes(id))?;
            write(memory, self.used, 8 + 8 * slot, &len.to_le_bytes())?;
        }
        let new = old.wrapping_add(count);
        publish(memory, self.used, 2, new)?;
        fence(Ordering::SeqCst);
        self.wants_call(memory, old, new)
    }

    fn wants_call(&self, memory: &GuestMemoryMmap, old: u16, new: u16) -> Result<bool, RingError> {
        if !self.layout.event_idx {
            return Ok(load::<u16>(memory, self.available, 0)? & NO_INTERRUPT == 0);
        }
        let place = 4 + 2 * u64::from(self.layout.size);
        let event: u16 = load(memory, self.available, place)?;
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    pub fn ask_for_kicks(&self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        if self.layout.event_idx {
            let place = 4 + 8 * u64::from(self.layout.size);
            write(memory, self.used, place, &self.next.to_le_bytes())?;
        }
        write(memory, self.used, 0, &0u16.to_le_bytes())?;
        fence(Ordering::SeqCst);
        Ok(())
    }
}
