//! The driver's side of a packed virtqueue (virtio 1.4, section 2.8).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{Ordering, fence};

use super::chain::{Chain, Element};
use super::error::DriverError;
use super::memory::{Memory, PAGE};
use super::position::{AVAIL, DISABLE, ENABLE, Position, SPECIFIC, USED};
use super::ring::{
    DESCRIPTOR, Descriptor, Places, Ring, Used, VIRTQ_INDIRECT, VIRTQ_NEXT, VIRTQ_WRITE,
};

#[derive(Debug)]
pub struct PackedRing {
    size: u16,
    places: Places,
    in_order: bool,
    /// Where the next descriptor is written.
    next: Position,
    /// Where the next used one is expected.
    used: Position,
    /// Buffer ids that are free, in the order in which they are taken.
    ids: VecDeque<u16>,
    free: u16,
    /// Descriptors of each buffer that is away, by its id.
    away: BTreeMap<u16, u16>,
    order: VecDeque<u16>,
    ready: VecDeque<Used>,
    /// First descriptors of staged chains, whose flags make them available.
    staged: Vec<(u64, u16)>,
    /// Where the last publication began, and how many descriptors it had.
    published: (Position, u16),
}

impl PackedRing {
    /// # Errors
    /// The memory is full.
    pub fn new(
        memory: &Memory,
        name: &str,
        size: u16,
        in_order: bool,
    ) -> Result<Self, DriverError> {
        let area = |part: &str, len: u64| {
            let addr = memory.take(&format!("{name}'s {part}"), len, PAGE)?;
            memory.write(addr, &vec![0; len as usize])?;
            Ok::<u64, DriverError>(addr)
        };
        let places = Places {
            descriptors: area("descriptor ring", DESCRIPTOR * u64::from(size))?,
            driver: area("driver event suppression", 4)?,
            device: area("device event suppression", 4)?,
        };
        memory.open(places.descriptors);
        memory.open(places.device);
        Ok(Self {
            size,
            places,
            in_order,
            next: Position::BEGIN,
            used: Position::BEGIN,
            ids: (0..size).collect(),
            free: size,
            away: BTreeMap::new(),
            order: VecDeque::new(),
            ready: VecDeque::new(),
            staged: Vec::new(),
            published: (Position::BEGIN, 0),
        })
    }

    /// The AVAIL and USED bits of a descriptor that is made available at the next place.
    pub fn available_bits(&self) -> u16 {
        if self.next.wrap { AVAIL } else { USED }
    }

    /// Writes any descriptor at the next place, flags and all.
    pub fn put(&mut self, memory: &Memory, descriptor: Descriptor) -> Result<(), DriverError> {
        descriptor.put(memory, self.places.descriptors, self.next.index)?;
        self.next.advance(1, self.size);
        Ok(())
    }

    fn flags_place(&self, index: u16) -> u64 {
        self.places.descriptors + DESCRIPTOR * u64::from(index) + 14
    }

    /// Writes a descriptor; the first one of a chain is made available later.
    fn stage_one(
        &mut self,
        memory: &Memory,
        mut descriptor: Descriptor,
        is_first: bool,
    ) -> Result<(), DriverError> {
        let flags = descriptor.last[1] | self.available_bits();
        if is_first {
            // Neither available nor used, as seen by a device with either wrap counter.
            descriptor.last[1] = memory.load_u16(self.flags_place(self.next.index))?;
            self.staged.push((self.flags_place(self.next.index), flags));
        } else {
            descriptor.last[1] = flags;
        }
        self.put(memory, descriptor)
    }

    fn stage_chain(&mut self, memory: &Memory, chain: &Chain, id: u16) -> Result<(), DriverError> {
        if let Some(table) = chain.table {
            for (n, element) in (0..).zip(&chain.elements) {
                let write = if element.writable { VIRTQ_WRITE } else { 0 };
                let entry = Descriptor::packed(element.addr, element.len, 0, write);
                entry.put(memory, table.addr, n)?;
            }
            let len = DESCRIPTOR as u32 * chain.elements.len() as u32;
            let write = if table.marked_writable {
                VIRTQ_WRITE
            } else {
                0
            };
            let descriptor = Descriptor::packed(table.addr, len, id, VIRTQ_INDIRECT | write);
            return self.stage_one(memory, descriptor, true);
        }
        let last = chain.elements.len() - 1;
        for (n, element) in chain.elements.iter().enumerate() {
            // The id is in the last descriptor; nothing reads the others' (section 2.8.6).
            let id = if n < last { !id } else { id };
            let descriptor = describe(element, id, n < last);
            self.stage_one(memory, descriptor, n == 0)?;
        }
        Ok(())
    }

    fn release(&mut self, id: u16, len: Option<u32>) {
        let count = self.away.remove(&id).unwrap_or(0);
        self.order.retain(|known| *known != id);
        self.ids.push_back(id);
        self.free += count;
        self.used.advance(count, self.size);
        self.ready.push_back(Used { id, len });
    }

    /// Takes in a used descriptor: that of one buffer, or of a batch in order.
    fn collect(&mut self, id: u16, len: u32, flags: u16) -> Result<(), String> {
        if !self.away.contains_key(&id) {
            let index = self.used.index;
            return Err(format!(
                "used descriptor {index} has the id {id}, which is no available buffer's"
            ));
        }
        // Without the flag the length means nothing (section 2.8.4).
        let len = if flags & VIRTQ_WRITE != 0 { len } else { 0 };
        if self.in_order {
            while let Some(first) = self.order.front().copied().filter(|first| *first != id) {
                self.release(first, None);
            }
        }
        self.release(id, Some(len));
        Ok(())
    }

    fn set_event(&self, memory: &Memory, position: u16, flags: u16) -> Result<(), DriverError> {
        memory.store_u16(self.places.driver, position)?;
        memory.store_u16(self.places.driver + 2, flags)?;
        fence(Ordering::SeqCst);
        Ok(())
    }
}

fn describe(element: &Element, id: u16, has_next: bool) -> Descriptor {
    let write = if element.writable { VIRTQ_WRITE } else { 0 };
    let next = if has_next { VIRTQ_NEXT } else { 0 };
    Descriptor::packed(element.addr, element.len, id, write | next)
}

impl Ring for PackedRing {
    fn size(&self) -> u16 {
        self.size
    }

    fn places(&self) -> Places {
        self.places
    }

    fn free(&self) -> usize {
        self.free.into()
    }

    fn stage(&mut self, memory: &Memory, chain: &Chain) -> Result<u16, String> {
        let count = chain.descriptors() as u16;
        if count == 0 || count > self.free {
            return Err(format!("{count} descriptors of {} free ones", self.free));
        }
        let id = self.ids.pop_front().ok_or("no free buffer id")?;
        if self.staged.is_empty() {
            self.published = (self.next, 0);
        }
        self.published.1 += count;
        self.stage_chain(memory, chain, id)
            .map_err(|error| error.to_string())?;
        self.free -= count;
        self.away.insert(id, count);
        self.order.push_back(id);
        Ok(id)
    }

    fn publish(&mut self, memory: &Memory) -> Result<(), DriverError> {
        for (place, flags) in std::mem::take(&mut self.staged) {
            memory.store_u16(place, flags)?;
        }
        Ok(())
    }

    fn poll(&mut self, memory: &Memory) -> Result<Option<Used>, String> {
        if let Some(used) = self.ready.pop_front() {
            return Ok(Some(used));
        }
        let text = |error: DriverError| error.to_string();
        let flags = memory
            .load_u16(self.flags_place(self.used.index))
            .map_err(text)?;
        let bits = if self.used.wrap { AVAIL | USED } else { 0 };
        if flags & (AVAIL | USED) != bits || self.order.is_empty() {
            return Ok(None);
        }
        let place = self.flags_place(self.used.index) - 6;
        let len = memory.read_u32(place).map_err(text)?;
        let id = memory.load_u16(place + 4).map_err(text)?;
        self.collect(id, len, flags)?;
        Ok(self.ready.pop_front())
    }

    fn wants_kick(&self, memory: &Memory) -> Result<bool, DriverError> {
        // What was published must be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        let event = Position::from_bits(memory.load_u16(self.places.device)?);
        let flags = memory.load_u16(self.places.device + 2)?;
        if flags != SPECIFIC {
            return Ok(flags != DISABLE);
        }
        let (mut position, count) = self.published;
        for _ in 0..count {
            if position == event {
                return Ok(true);
            }
            position.advance(1, self.size);
        }
        Ok(false)
    }

    fn set_notify(&mut self, memory: &Memory, on: bool) -> Result<(), DriverError> {
        self.set_event(memory, 0, if on { ENABLE } else { DISABLE })
    }

    fn notify_after(&mut self, memory: &Memory, count: u16) -> Result<(), DriverError> {
        let mut position = self.used;
        for n in 1..usize::from(count) {
            // One descriptor each for buffers that have yet to be made available.
            let id = self.order.get(n - 1);
            let descriptors = id.and_then(|id| self.away.get(id)).copied().unwrap_or(1);
            position.advance(descriptors, self.size);
        }
        self.set_event(memory, position.to_bits(), SPECIFIC)
    }

    fn base(&self) -> u32 {
        let bits = u32::from(self.next.to_bits());
        bits | bits << 16
    }

    fn used_base(&self) -> u32 {
        let bits = u32::from(self.used.to_bits());
        bits | bits << 16
    }

    /// All descriptors are as they were used, where nothing is in flight: before the base in this
    /// round, behind it in the one before. Zeros would be new to who comes with a wrap counter
    /// of 0.
    fn rebase(&mut self, memory: &Memory, base: u32) -> Result<(), DriverError> {
        self.next = Position::from_bits(base as u16);
        self.used = Position::from_bits((base >> 16) as u16);
        for index in 0..self.size {
            let is_of_this_round = index < self.next.index;
            let wrap = is_of_this_round == self.next.wrap;
            let flags = if wrap { AVAIL | USED } else { 0 };
            memory.store_u16(self.flags_place(index), flags)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "packed_test.rs"]
mod tests;
