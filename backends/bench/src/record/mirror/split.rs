//! A split virtqueue in two copies (virtio 1.4, section 2.7): the driver's own, and the one that
//! the device has. The table of descriptors is the driver's; the indices are the same in both.

use std::sync::atomic::{Ordering, fence};

use crate::follow::{Chain, SplitRing, Used};
use crate::interpose::Memory;

/// How often a ring is looked at while its owner keeps adding to it: others wait meanwhile.
const ROUNDS: usize = 16;

#[derive(Clone, Debug)]
pub struct Split {
    size: u16,
    has_event_idx: bool,
    next_available: u16,
    next_used: u16,
}

impl Split {
    /// The device's copy is as the driver's, with nothing that the device has yet to take.
    pub fn start(
        size: u16,
        has_event_idx: bool,
        base: u16,
        [driver, device]: [&SplitRing; 2],
    ) -> Self {
        let split = Self {
            size,
            has_event_idx,
            next_available: base,
            next_used: driver.used(),
        };
        split.resume([driver, device])
    }

    /// Continues with other copies where it was.
    pub fn resume(self, [driver, device]: [&SplitRing; 2]) -> Self {
        device.copy_until(driver, self.next_available);
        device.ask_for_calls(None);
        driver.ask_for_kicks(None);
        self.ask_for_calls(device);
        self
    }

    /// Whether the driver's ring is where this one was.
    pub fn is_at(&self, driver: &SplitRing) -> bool {
        driver.used() == self.next_used
    }

    /// As SET_VRING_BASE has it, of a device that has taken nothing that it has not used.
    pub fn base(&self) -> u32 {
        self.next_used.into()
    }

    /// Passes on what the driver has made available, when `record` has seen it. Says whether
    /// there was anything.
    pub fn pass_available(
        &mut self,
        memory: &Memory,
        [driver, device]: [&SplitRing; 2],
        record: &mut dyn FnMut(Chain),
    ) -> bool {
        let begin = self.next_available;
        for _ in 0..ROUNDS {
            let index = driver.available();
            let new = index.wrapping_sub(self.next_available);
            // More than the ring has are a driver's mistake, which the device is to see too.
            for _ in 0..new.min(self.size) {
                let head = driver.head(self.next_available);
                record(driver.chain(memory, head));
                device.put_head(self.next_available, head);
                self.next_available = self.next_available.wrapping_add(1);
            }
            self.next_available = index;
            device.make_available(index);
            if self.has_event_idx {
                driver.ask_for_kicks(Some(index));
            }
            fence(Ordering::SeqCst);
            if driver.available() == index {
                break;
            }
        }
        self.next_available != begin
    }

    /// Whether the driver has made more available in the meantime, or the device has used more.
    /// Who looked away tells of it once more.
    pub fn has_more(&self, [driver, device]: [&SplitRing; 2]) -> [bool; 2] {
        [
            driver.available() != self.next_available,
            device.used() != self.next_used,
        ]
    }

    /// Passes on what the device has used, when `record` has seen it. Says whether the driver
    /// wants to hear of it.
    pub fn pass_used(
        &mut self,
        [driver, device]: [&SplitRing; 2],
        record: &mut dyn FnMut(&Used),
    ) -> bool {
        let begin = self.next_used;
        for _ in 0..ROUNDS {
            let index = device.used();
            let new = index.wrapping_sub(self.next_used);
            for _ in 0..new.min(self.size) {
                let used = device.used_chain(self.next_used);
                record(&used);
                driver.put_used(self.next_used, used);
                self.next_used = self.next_used.wrapping_add(1);
            }
            self.next_used = index;
            driver.mark_used(index);
            self.ask_for_calls(device);
            fence(Ordering::SeqCst);
            if device.used() == index {
                break;
            }
        }
        driver.wants_call(begin, self.next_used, self.has_event_idx)
    }

    /// Section 2.7.10: when the next one is used.
    fn ask_for_calls(&self, device: &SplitRing) {
        if self.has_event_idx {
            device.ask_for_calls(Some(self.next_used));
        }
    }
}
