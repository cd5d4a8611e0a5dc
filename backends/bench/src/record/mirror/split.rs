//! A split virtqueue in two copies (virtio 1.4, section 2.7): the driver's own, and the one that
//! the device has. The table of descriptors is the driver's; the indices are the same in both.

use std::sync::atomic::{Ordering, fence};

use super::area::Area;
use super::chain::Chain;
use crate::interpose::Memory;

/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;

/// How often a ring is looked at while its owner keeps adding to it: others wait meanwhile.
const ROUNDS: usize = 16;

/// One copy.
pub struct Copy<'a> {
    pub available: Area<'a>,
    pub used: Area<'a>,
}

impl Copy<'_> {
    /// Bytes of the available and the used ring.
    pub fn sizes(size: u16) -> [usize; 2] {
        let size = usize::from(size);
        [6 + 2 * size, 6 + 8 * size]
    }
}

#[derive(Debug)]
pub struct Split {
    size: u16,
    has_event_idx: bool,
    next_available: u16,
    next_used: u16,
}

impl Split {
    /// The device's copy is as the driver's, with nothing that the device has yet to take.
    pub fn start(size: u16, has_event_idx: bool, base: u16, [driver, device]: [&Copy; 2]) -> Self {
        device.available.copy(&driver.available);
        device.used.copy(&driver.used);
        device.available.store(0, 0);
        device.available.store(2, base);
        driver.used.store(0, 0);
        let split = Self {
            size,
            has_event_idx,
            next_available: base,
            next_used: driver.used.load(2),
        };
        split.ask_for_calls(device);
        split
    }

    /// Passes on what the driver has made available, when `record` has seen it. Says whether
    /// there was anything.
    pub fn pass_available(
        &mut self,
        [driver, device]: [&Copy; 2],
        record: &mut dyn FnMut(u16),
    ) -> bool {
        let begin = self.next_available;
        for _ in 0..ROUNDS {
            let index = driver.available.load(2);
            let new = index.wrapping_sub(self.next_available);
            // More than the ring has are a driver's mistake, which the device is to see too.
            for _ in 0..new.min(self.size) {
                let slot = 4 + 2 * usize::from(self.next_available % self.size);
                let head = driver.available.load(slot);
                record(head);
                device.available.store(slot, head);
                self.next_available = self.next_available.wrapping_add(1);
            }
            self.next_available = index;
            device.available.store(2, index);
            if self.has_event_idx {
                driver.used.store(4 + 8 * usize::from(self.size), index);
            }
            fence(Ordering::SeqCst);
            if driver.available.load(2) == index {
                break;
            }
        }
        self.next_available != begin
    }

    /// Whether the driver has made more available in the meantime, or the device has used more.
    /// Who looked away tells of it once more.
    pub fn has_more(&self, [driver, device]: [&Copy; 2]) -> [bool; 2] {
        [
            driver.available.load(2) != self.next_available,
            device.used.load(2) != self.next_used,
        ]
    }

    /// Passes on what the device has used, when `record` has seen it. Says whether the driver
    /// wants to hear of it.
    pub fn pass_used(
        &mut self,
        [driver, device]: [&Copy; 2],
        record: &mut dyn FnMut(u16, u32),
    ) -> bool {
        let begin = self.next_used;
        for _ in 0..ROUNDS {
            let index = device.used.load(2);
            let new = index.wrapping_sub(self.next_used);
            for _ in 0..new.min(self.size) {
                let slot = 4 + 8 * usize::from(self.next_used % self.size);
                let element: [u8; 8] = device.used.get(slot);
                let [a, b, _, _, len @ ..] = element;
                record(u16::from_le_bytes([a, b]), u32::from_le_bytes(len));
                driver.used.put(slot, &element);
                self.next_used = self.next_used.wrapping_add(1);
            }
            self.next_used = index;
            driver.used.store(2, index);
            self.ask_for_calls(device);
            fence(Ordering::SeqCst);
            if device.used.load(2) == index {
                break;
            }
        }
        self.wants_call(driver, begin)
    }

    /// Section 2.7.10: when the next one is used.
    fn ask_for_calls(&self, device: &Copy) {
        if self.has_event_idx {
            let place = 4 + 2 * usize::from(self.size);
            device.available.store(place, self.next_used);
        }
    }

    /// Section 2.7.7.
    fn wants_call(&self, driver: &Copy, begin: u16) -> bool {
        let new = self.next_used.wrapping_sub(begin);
        if new == 0 {
            return false;
        }
        if !self.has_event_idx {
            return driver.available.load(0) & NO_INTERRUPT == 0;
        }
        let event = driver.available.load(4 + 2 * usize::from(self.size));
        self.next_used.wrapping_sub(event).wrapping_sub(1) < new
    }
}

/// Reads the chain that begins with this descriptor.
pub fn chain(memory: &Memory, table: &Area<'_>, size: u16, head: u16) -> Chain {
    let mut chain = Chain {
        id: head,
        ..Chain::default()
    };
    let read = |index: u16| (index < size).then(|| table.get(16 * usize::from(index)));
    if let Some(indirect) = chain.follow(read, head) {
        chain.read_table(memory, &indirect, true);
    }
    chain.limit(size);
    chain
}
