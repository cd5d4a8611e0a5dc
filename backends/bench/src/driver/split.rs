//! The driver's side of a split virtqueue (virtio 1.4, section 2.7).

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{Ordering, fence};

use super::chain::{Chain, Element, Table};
use super::error::DriverError;
use super::memory::{Memory, PAGE};
use super::ring::{
    DESCRIPTOR, Descriptor, Places, Ring, Used, VIRTQ_INDIRECT, VIRTQ_NEXT, VIRTQ_WRITE,
};

/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;
/// VIRTQ_USED_F_NO_NOTIFY
const NO_NOTIFY: u16 = 1;

#[derive(Debug)]
pub struct SplitRing {
    size: u16,
    places: Places,
    event_idx: bool,
    in_order: bool,
    /// In the order in which they are taken.
    free: VecDeque<u16>,
    /// The descriptors of each chain that is away, by its head.
    away: BTreeMap<u16, Vec<u16>>,
    /// Heads in the order of their availability.
    order: VecDeque<u16>,
    /// Buffers of a batch that have not been handed out yet.
    ready: VecDeque<Used>,
    /// The available index with what is staged, and without.
    staged: u16,
    available: u16,
    /// The available index at the publication before the last one.
    before: u16,
    used: u16,
}

impl SplitRing {
    /// # Errors
    /// The memory is full.
    pub fn new(
        memory: &Memory,
        name: &str,
        size: u16,
        event_idx: bool,
        in_order: bool,
    ) -> Result<Self, DriverError> {
        let entries = u64::from(size);
        let area = |part: &str, len| {
            let addr = memory.take(&format!("{name}'s {part}"), len, PAGE)?;
            memory.write(addr, &vec![0; len as usize])?;
            Ok::<u64, DriverError>(addr)
        };
        let places = Places {
            descriptors: area("descriptor table", DESCRIPTOR * entries)?,
            driver: area("available ring", 6 + 2 * entries)?,
            device: area("used ring", 6 + 8 * entries)?,
        };
        memory.open(places.device);
        Ok(Self {
            size,
            places,
            event_idx,
            in_order,
            free: (0..size).collect(),
            away: BTreeMap::new(),
            order: VecDeque::new(),
            ready: VecDeque::new(),
            staged: 0,
            available: 0,
            before: 0,
            used: 0,
        })
    }

    /// Puts any head into the available ring, without making it available.
    pub fn stage_head(&mut self, memory: &Memory, head: u16) -> Result<(), DriverError> {
        let slot = u64::from(self.staged % self.size);
        memory.write(self.places.driver + 4 + 2 * slot, &head.to_le_bytes())?;
        self.staged = self.staged.wrapping_add(1);
        self.order.push_back(head);
        Ok(())
    }

    fn used_event_place(&self) -> u64 {
        self.places.driver + 4 + 2 * u64::from(self.size)
    }

    fn write_table(memory: &Memory, table: Table, elements: &[Element]) -> Result<(), DriverError> {
        let count = elements.len() as u16;
        // Entry n stands at the n-th of these places.
        let mut order: Vec<u16> = (0..count).collect();
        if table.reversed && count > 1 {
            order[1..].reverse();
        }
        for (n, element) in elements.iter().enumerate() {
            let next = order.get(n + 1);
            let descriptor = describe(element, next.copied());
            descriptor.put(memory, table.addr, order[n])?;
        }
        Ok(())
    }

    fn write_chain(
        &mut self,
        memory: &Memory,
        chain: &Chain,
        slots: &[u16],
    ) -> Result<(), DriverError> {
        let direct = chain
            .table
            .map_or(chain.elements.len(), |table| table.direct);
        let (direct, rest) = chain.elements.split_at(direct);
        for (n, element) in direct.iter().enumerate() {
            let next = slots.get(n + 1).copied();
            describe(element, next).put(memory, self.places.descriptors, slots[n])?;
        }
        if let (Some(table), Some(last)) = (chain.table, slots.last()) {
            Self::write_table(memory, table, rest)?;
            let len = DESCRIPTOR as u32 * rest.len() as u32;
            let write = if table.marked_writable {
                VIRTQ_WRITE
            } else {
                0
            };
            let descriptor = Descriptor::split(table.addr, len, VIRTQ_INDIRECT | write, 0);
            descriptor.put(memory, self.places.descriptors, *last)?;
        }
        Ok(())
    }

    /// Takes in the used entries up to `index`: one each, or one for a batch.
    fn collect(&mut self, memory: &Memory, index: u16) -> Result<(), String> {
        let away = index.wrapping_sub(self.used);
        if usize::from(away) > self.order.len() {
            return Err(format!(
                "the used index moved from {} to {index}, with {} buffers available",
                self.used,
                self.order.len()
            ));
        }
        let place = self.places.device + 4 + 8 * u64::from(self.used % self.size);
        let read = |addr| memory.read_u32(addr).map_err(|error| error.to_string());
        let (id, len) = (read(place)?, read(place + 4)?);
        let head = u16::try_from(id)
            .ok()
            .filter(|head| self.order.contains(head));
        let Some(head) = head else {
            return Err(format!(
                "used entry {} has the id {id}, which is no available buffer's head",
                self.used
            ));
        };
        let position = self
            .order
            .iter()
            .position(|known| *known == head)
            .unwrap_or(0);
        // One entry for all buffers up to this one (section 2.7.9).
        let skipped = if self.in_order { position } else { 0 };
        for _ in 0..skipped {
            if let Some(id) = self.order.pop_front() {
                self.release(id, None);
            }
        }
        self.order.retain(|known| *known != head);
        self.release(head, Some(len));
        self.used = self.used.wrapping_add(skipped as u16 + 1);
        Ok(())
    }

    fn release(&mut self, id: u16, len: Option<u32>) {
        self.free.extend(self.away.remove(&id).unwrap_or_default());
        self.ready.push_back(Used { id, len });
    }
}

fn describe(element: &Element, next: Option<u16>) -> Descriptor {
    let write = if element.writable { VIRTQ_WRITE } else { 0 };
    let flags = write | next.map_or(0, |_| VIRTQ_NEXT);
    Descriptor::split(element.addr, element.len, flags, next.unwrap_or(0))
}

impl Ring for SplitRing {
    fn size(&self) -> u16 {
        self.size
    }

    fn places(&self) -> Places {
        self.places
    }

    fn free(&self) -> usize {
        self.free.len()
    }

    fn stage(&mut self, memory: &Memory, chain: &Chain) -> Result<u16, String> {
        let count = chain.descriptors();
        if count == 0 || count > self.free.len() {
            return Err(format!(
                "{count} descriptors of {} free ones",
                self.free.len()
            ));
        }
        let slots: Vec<u16> = self.free.drain(..count).collect();
        let head = slots[0];
        self.write_chain(memory, chain, &slots)
            .map_err(|error| error.to_string())?;
        self.away.insert(head, slots);
        self.stage_head(memory, head)
            .map_err(|error| error.to_string())?;
        Ok(head)
    }

    fn publish(&mut self, memory: &Memory) -> Result<(), DriverError> {
        self.before = self.available;
        self.available = self.staged;
        memory.store_u16(self.places.driver + 2, self.available)
    }

    fn poll(&mut self, memory: &Memory) -> Result<Option<Used>, String> {
        if self.ready.is_empty() {
            let index = memory.load_u16(self.places.device + 2);
            let index = index.map_err(|error| error.to_string())?;
            if index != self.used {
                self.collect(memory, index)?;
            }
        }
        Ok(self.ready.pop_front())
    }

    fn wants_kick(&self, memory: &Memory) -> Result<bool, DriverError> {
        // What was published must be visible before the device's wish is read.
        fence(Ordering::SeqCst);
        if !self.event_idx {
            return Ok(memory.load_u16(self.places.device)? & NO_NOTIFY == 0);
        }
        let place = self.places.device + 4 + 8 * u64::from(self.size);
        let event = memory.load_u16(place)?;
        let added = self.available.wrapping_sub(self.before);
        Ok(self.available.wrapping_sub(event).wrapping_sub(1) < added)
    }

    fn set_notify(&mut self, memory: &Memory, on: bool) -> Result<(), DriverError> {
        if self.event_idx {
            // As far away as can be: the index is behind the device's.
            let event = if on {
                self.used
            } else {
                self.used.wrapping_sub(1)
            };
            memory.store_u16(self.used_event_place(), event)?;
        } else {
            let flags = if on { 0 } else { NO_INTERRUPT };
            memory.store_u16(self.places.driver, flags)?;
        }
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn notify_after(&mut self, memory: &Memory, count: u16) -> Result<(), DriverError> {
        let event = self.used.wrapping_add(count).wrapping_sub(1);
        memory.store_u16(self.used_event_place(), event)?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn base(&self) -> u32 {
        self.available.into()
    }

    fn used_base(&self) -> u32 {
        self.used.into()
    }

    fn rebase(&mut self, memory: &Memory, base: u32) -> Result<(), DriverError> {
        let index = base as u16;
        (self.staged, self.available, self.before, self.used) = (index, index, index, index);
        memory.store_u16(self.places.driver + 2, index)?;
        memory.write(self.places.device + 2, &index.to_le_bytes())
    }
}
