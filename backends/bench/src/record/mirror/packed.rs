//! A packed virtqueue in two copies (virtio 1.4, section 2.8): the driver's own, and the one that
//! the device has. A descriptor is in the same place in both.

use std::sync::atomic::{Ordering, fence};

use super::area::Area;
use super::chain::{Chain, Descriptor, INDIRECT, NEXT};
use crate::interpose::Memory;

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// RING_EVENT_FLAGS_DISABLE and _DESC
const DISABLE: u16 = 1;
const SPECIFIC: u16 = 2;
const WRAP: u16 = 1 << 15;

/// One copy.
pub struct Copy<'a> {
    pub descriptors: Area<'a>,
    /// Driver and device event suppression.
    pub driver_event: Area<'a>,
    pub device_event: Area<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    index: u16,
    wrap: bool,
}

impl Position {
    fn from_bits(bits: u16, size: u16) -> Self {
        Self {
            index: (bits & !WRAP) % size,
            wrap: bits & WRAP != 0,
        }
    }

    fn advance(&mut self, count: u16, size: u16) {
        let index = u32::from(self.index) + u32::from(count.min(size));
        let is_round = index >= u32::from(size);
        self.index = (index - if is_round { u32::from(size) } else { 0 }) as u16;
        self.wrap ^= is_round;
    }

    /// Descriptors from here to another place, less than a round.
    fn distance(self, to: Self, size: u16) -> u16 {
        match self.wrap == to.wrap {
            true => to.index.saturating_sub(self.index),
            false => (size - self.index).saturating_add(to.index).min(size),
        }
    }

    fn at(self) -> usize {
        16 * usize::from(self.index)
    }

    fn is_available(self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap && (flags & USED != 0) != self.wrap
    }

    fn is_used(self, flags: u16) -> bool {
        (flags & AVAIL != 0) == self.wrap && (flags & USED != 0) == self.wrap
    }
}

#[derive(Debug)]
pub struct Packed {
    size: u16,
    available: Position,
    used: Position,
}

impl Packed {
    /// The device's copy is as the driver's, with nothing that the device has yet to take. `base`
    /// is as SET_VRING_BASE has it.
    pub fn start(size: u16, base: u32, [driver, device]: [&Copy; 2]) -> Self {
        let available = Position::from_bits(base as u16, size);
        let used = Position::from_bits((base >> 16) as u16, size);
        device.descriptors.copy(&driver.descriptors);
        let mut position = available;
        for _ in used.distance(available, size)..size {
            // As it was used a round ago.
            let flags = if position.wrap { 0 } else { AVAIL | USED };
            device.descriptors.store(position.at() + 14, flags);
            position.advance(1, size);
        }
        // Each tells of everything.
        device.driver_event.put(0, &[0; 4]);
        driver.device_event.put(0, &[0; 4]);
        Self {
            size,
            available,
            used,
        }
    }

    /// Passes on what the driver has made available, when `record` has seen it. Says whether
    /// there was anything.
    pub fn pass_available(
        &mut self,
        memory: &Memory,
        [driver, device]: [&Copy; 2],
        record: &mut dyn FnMut(Chain),
    ) -> bool {
        let begin = self.available;
        let mut left = self.size;
        loop {
            let flags = driver.descriptors.load(self.available.at() + 14);
            if left == 0 || !self.available.is_available(flags) {
                return self.available != begin;
            }
            let chain = self.chain(memory, driver);
            let count = chain.descriptors;
            record(chain);
            self.copy_chain(count, [driver, device]);
            self.available.advance(count, self.size);
            left = left.saturating_sub(count);
        }
    }

    /// Whether the driver has made more available in the meantime, or the device has used more.
    pub fn has_more(&self, [driver, device]: [&Copy; 2]) -> [bool; 2] {
        let flags = |copy: &Copy, position: Position| copy.descriptors.load(position.at() + 14);
        [
            self.available.is_available(flags(driver, self.available)),
            self.used.is_used(flags(device, self.used)),
        ]
    }

    fn chain(&self, memory: &Memory, driver: &Copy) -> Chain {
        let mut chain = Chain::default();
        let mut position = self.available;
        while chain.descriptors < self.size {
            let descriptor = Descriptor::packed(driver.descriptors.get(position.at()));
            chain.descriptors += 1;
            chain.id = descriptor.number;
            if descriptor.has(INDIRECT) {
                chain.read_table(memory, &descriptor, false);
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

    /// The first descriptor makes the chain available, and so comes last.
    fn copy_chain(&self, count: u16, [driver, device]: [&Copy; 2]) {
        let first = self.available;
        let mut position = first;
        for _ in 1..count {
            position.advance(1, self.size);
            let bytes: [u8; 16] = driver.descriptors.get(position.at());
            device.descriptors.put(position.at(), &bytes);
        }
        let bytes: [u8; 16] = driver.descriptors.get(first.at());
        device.descriptors.put(first.at(), &bytes[..14]);
        let flags = u16::from_le_bytes([bytes[14], bytes[15]]);
        device.descriptors.store(first.at() + 14, flags);
    }

    /// Passes on what the device has used, when `record` has seen it and said how many
    /// descriptors it has. Says whether the driver wants to hear of it.
    pub fn pass_used(
        &mut self,
        [driver, device]: [&Copy; 2],
        record: &mut dyn FnMut(u16, u32) -> u16,
    ) -> bool {
        let begin = self.used;
        let mut passed = 0;
        while passed < self.size {
            let at = self.used.at();
            let flags = device.descriptors.load(at + 14);
            if !self.used.is_used(flags) {
                break;
            }
            let bytes: [u8; 16] = device.descriptors.get(at);
            let descriptor = Descriptor::packed(bytes);
            let count = record(descriptor.number, descriptor.len).max(1);
            driver.descriptors.put(at + 8, &bytes[8..14]);
            driver.descriptors.store(at + 14, flags);
            self.used.advance(count, self.size);
            passed = passed.saturating_add(count);
        }
        fence(Ordering::SeqCst);
        passed > 0 && self.wants_call(driver, begin, passed)
    }

    /// Section 2.8.14.
    fn wants_call(&self, driver: &Copy, begin: Position, passed: u16) -> bool {
        match driver.driver_event.load(2) & 3 {
            DISABLE => false,
            SPECIFIC => {
                let event = Position::from_bits(driver.driver_event.load(0), self.size);
                let mut position = begin;
                (0..passed).any(|_| {
                    let is_it = position == event;
                    position.advance(1, self.size);
                    is_it
                })
            }
            _ => true,
        }
    }
}
