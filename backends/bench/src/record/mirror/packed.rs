//! A packed virtqueue in two copies (virtio 1.4, section 2.8): the driver's own, and the one that
//! the device has. A descriptor is in the same place in both.

use std::sync::atomic::{Ordering, fence};

use crate::follow::{Chain, PackedRing, Position, Used};
use crate::interpose::Memory;

#[derive(Clone, Debug)]
pub struct Packed {
    size: u16,
    available: Position,
    used: Position,
}

impl Packed {
    /// The device's copy is as the driver's, with nothing that the device has yet to take. `base`
    /// is as SET_VRING_BASE has it.
    pub fn start(size: u16, base: u32, copies: [&PackedRing; 2]) -> Self {
        let [available, used] = Position::of_base(base, size);
        let packed = Self {
            size,
            available,
            used,
        };
        packed.resume(copies)
    }

    /// Continues with other copies where it was.
    pub fn resume(self, [driver, device]: [&PackedRing; 2]) -> Self {
        let free = self.size - self.used.distance(self.available, self.size);
        device.copy_until(driver, self.available, free);
        device.ask_for_calls();
        driver.ask_for_kicks();
        self
    }

    /// Whether the driver's ring is where this one was, with chains that are in flight.
    pub fn is_at(&self, driver: &PackedRing) -> bool {
        driver.is_available(self.used)
    }

    /// As SET_VRING_BASE has it, of a device that has taken nothing that it has not used.
    pub fn base(&self) -> u32 {
        let bits = u32::from(self.used.bits());
        bits | bits << 16
    }

    /// Passes on what the driver has made available, when `record` has seen it. Says whether
    /// there was anything.
    pub fn pass_available(
        &mut self,
        memory: &Memory,
        [driver, device]: [&PackedRing; 2],
        record: &mut dyn FnMut(Chain),
    ) -> bool {
        let begin = self.available;
        let mut left = self.size;
        while left > 0 && driver.is_available(self.available) {
            let chain = driver.chain(memory, self.available, self.size);
            let count = chain.descriptors;
            record(chain);
            device.make_available(driver, self.available, count);
            self.available.advance(count, self.size);
            left = left.saturating_sub(count);
        }
        self.available != begin
    }

    /// Whether the driver has made more available in the meantime, or the device has used more.
    pub fn has_more(&self, [driver, device]: [&PackedRing; 2]) -> [bool; 2] {
        [
            driver.is_available(self.available),
            device.is_used(self.used),
        ]
    }

    /// Passes on what the device has used, when `record` has seen it and said how many
    /// descriptors it has. Says whether the driver wants to hear of it.
    pub fn pass_used(
        &mut self,
        [driver, device]: [&PackedRing; 2],
        record: &mut dyn FnMut(&Used) -> u16,
    ) -> bool {
        let begin = self.used;
        let mut passed = 0;
        while passed < self.size && device.is_used(self.used) {
            let count = record(&device.used(self.used)).max(1);
            driver.mark_used(device, self.used);
            self.used.advance(count, self.size);
            passed = passed.saturating_add(count);
        }
        fence(Ordering::SeqCst);
        passed > 0 && driver.wants_call(begin, passed)
    }
}
