//! A packed virtqueue (virtio 1.4, section 2.8).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::access::{load, publish, write};
use super::chain::{Chain, DESCRIPTOR, NEXT, RingError, WRITE, is_table};
use super::layout::{Layout, RingFault};
use crate::backend::trouble::Trouble;
use crate::driver::position::{AVAIL, DISABLE, ENABLE, Position, SPECIFIC, USED};

/// What a descriptor says.
struct Descriptor {
    addr: u64,
    len: u32,
    id: u16,
    flags: u16,
}

#[derive(Debug)]
pub struct PackedRing {
    layout: Layout,
    ring: GuestAddress,
    /// The driver's wish for notifications, and the device's.
    driver: GuestAddress,
    device: GuestAddress,
    next: Position,
    used: Position,
}

impl PackedRing {
    /// The base has both positions ("A vring descriptor index for packed virtqueues").
    ///
    /// # Errors
    /// One of them is not in the ring.
    pub fn new(layout: Layout, base: u32) -> Result<Self, RingError> {
        let [ring, driver, device] = layout.places;
        let halves = [base as u16, (base >> 16) as u16];
        let [next, used] = halves.map(Position::from_bits);
        let size = layout.size;
        if next.index >= size || used.index >= size {
            let text = format!("the base is {base:#x}, and the ring has {size}");
            return Err((Trouble::Index, text));
        }
        Ok(Self {
            layout,
            ring,
            driver,
            device,
            next,
            used,
        })
    }

    pub fn base(&self) -> u32 {
        u32::from(self.next.to_bits()) | u32::from(self.used.to_bits()) << 16
    }

    fn flags_at(index: u16) -> u64 {
        DESCRIPTOR * u64::from(index) + 14
    }

    pub fn has_available(&self, memory: &GuestMemoryMmap) -> Result<bool, RingError> {
        let Position { index, wrap } = self.next;
        let flags: u16 = load(memory, self.ring, Self::flags_at(index))?;
        let (available, used) = (flags & AVAIL != 0, flags & USED != 0);
        Ok(available == wrap && used != wrap)
    }

    fn read(
        memory: &GuestMemoryMmap,
        table: GuestAddress,
        index: u16,
    ) -> Result<Descriptor, RingError> {
        let at = DESCRIPTOR * u64::from(index);
        Ok(Descriptor {
            addr: load(memory, table, at)?,
            len: load(memory, table, at + 8)?,
            id: load(memory, table, at + 12)?,
            flags: load(memory, table, at + 14)?,
        })
    }

    pub fn pop(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, RingError> {
        if !self.has_available(memory)? {
            return Ok(None);
        }
        let mut chain = Chain::default();
        let mut at = self.next;
        for count in 1..=self.layout.size {
            let one = Self::read(memory, self.ring, at.index)?;
            at.advance(1, self.layout.size);
            // The id is that of the last descriptor (section 2.8.6).
            (chain.id, chain.count) = (one.id, count);
            if is_table(one.flags, self.layout.indirect, false)? {
                read_table(memory, &one, &mut chain)?;
            } else {
                let buffer = (GuestAddress(one.addr), one.len);
                chain.push(memory, buffer, one.flags & WRITE != 0)?;
            }
            if one.flags & NEXT == 0 {
                self.next = at;
                return Ok(Some(chain));
            }
        }
        let (begin, size) = (self.next.index, self.layout.size);
        let text = format!("the chain from descriptor {begin} is longer than the ring, of {size}");
        Err((Trouble::Descriptor, text))
    }

    pub fn push(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        len: u32,
        fault: Option<RingFault>,
    ) -> Result<bool, RingError> {
        let size = self.layout.size;
        let (id, len) = match fault {
            Some(RingFault::IdTooLarge) => (size.saturating_add(7), len),
            Some(RingFault::LengthTooLong) => (chain.id, u32::MAX),
            _ => (chain.id, len),
        };
        let times = match fault {
            Some(RingFault::UsedTwice) => 2,
            // Each used descriptor stands for at least one of the ring.
            Some(RingFault::IndexJumps) => size,
            _ => 1,
        };
        let old = self.used;
        for _ in 0..times {
            self.write_used(memory, id, len)?;
            self.used.advance(chain.count, size);
        }
        fence(Ordering::SeqCst);
        self.wants_call(memory, old, chain.count)
    }

    fn write_used(&self, memory: &GuestMemoryMmap, id: u16, len: u32) -> Result<(), RingError> {
        let at = DESCRIPTOR * u64::from(self.used.index);
        write(memory, self.ring, at + 8, &len.to_le_bytes())?;
        write(memory, self.ring, at + 12, &id.to_le_bytes())?;
        let wrap = if self.used.wrap { AVAIL | USED } else { 0 };
        // Without the flag the length means nothing (section 2.8.4).
        let written = if len > 0 { WRITE } else { 0 };
        publish(memory, self.ring, at + 14, wrap | written)
    }

    /// Whether the driver wants to hear of the descriptors used from `old` on (section 2.8.10).
    fn wants_call(
        &self,
        memory: &GuestMemoryMmap,
        mut old: Position,
        count: u16,
    ) -> Result<bool, RingError> {
        let event = Position::from_bits(load(memory, self.driver, 0)?);
        let flags: u16 = load(memory, self.driver, 2)?;
        if !self.layout.event_idx || flags & 3 != SPECIFIC {
            return Ok(flags & 3 != DISABLE);
        }
        for _ in 0..count {
            if old == event {
                return Ok(true);
            }
            old.advance(1, self.layout.size);
        }
        Ok(false)
    }

    pub fn ask_for_kicks(&self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        let flags = if self.layout.event_idx {
            write(memory, self.device, 0, &self.next.to_bits().to_le_bytes())?;
            SPECIFIC
        } else {
            ENABLE
        };
        publish(memory, self.device, 2, flags)?;
        fence(Ordering::SeqCst);
        Ok(())
    }
}

/// All descriptors of a table are part of the chain, and only their flag WRITE counts
/// (section 2.8.7).
fn read_table(
    memory: &GuestMemoryMmap,
    one: &Descriptor,
    chain: &mut Chain,
) -> Result<(), RingError> {
    let len = u64::from(one.len) / DESCRIPTOR;
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    for index in 0..len {
        let part = PackedRing::read(memory, GuestAddress(one.addr), index)?;
        is_table(part.flags, true, true)?;
        let buffer = (GuestAddress(part.addr), part.len);
        chain.push(memory, buffer, part.flags & WRITE != 0)?;
    }
    Ok(())
}
