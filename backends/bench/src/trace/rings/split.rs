//! Looks into a split virtqueue (virtio 1.4, section 2.7) while others use it.
//!
//! Nothing is written. What is read may change at any moment, or be nonsense: a chain is
//! followed for as many descriptors as the queue has, and no further.

use std::collections::HashMap;

use crate::interpose::Memory;
use crate::trace::record::Buffer;

const DESCRIPTOR: u64 = 16;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// Where a ring is, as SET_VRING_ADDR says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Addresses {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// A chain that the device has yet to use.
#[derive(Clone, Debug)]
pub struct Chain {
    pub head: u16,
    pub buffers: Vec<Buffer>,
    /// What it asks for.
    pub what: String,
    /// When it was seen, in nanoseconds since the trace began.
    pub time: u64,
}

/// What has happened since the last look, in an order in which it can have happened.
#[derive(Clone, Debug)]
pub enum Seen {
    Available(Chain),
    /// The chain with this head, if it was seen before, and how much the device has written.
    Used(u16, Option<Chain>, u32),
}

/// How far a ring has been looked at.
#[derive(Debug, Default)]
pub struct Split {
    pub addresses: Addresses,
    pub size: u16,
    next_available: u16,
    next_used: u16,
    /// Nobody has looked since the ring started.
    is_new: bool,
    waiting: HashMap<u16, Chain>,
}

/// What a look needs to know.
pub struct Look<'a> {
    pub memory: &'a Memory,
    /// Of the look.
    pub time: u64,
    pub describe: &'a dyn Fn(&[Buffer]) -> String,
}

impl Split {
    /// The ring starts with this chain.
    pub fn set_base(&mut self, base: u16) {
        self.next_available = base;
        self.next_used = base;
        self.is_new = true;
        self.waiting.clear();
    }

    /// What the driver has made available and the device has used. A head may come several
    /// times: it is made available again only when it has been used.
    pub fn look(&mut self, look: &Look<'_>) -> Vec<Seen> {
        // In this order: what is used by then was available before.
        let used = self.index(look.memory, self.addresses.used);
        let available = self.index(look.memory, self.addresses.available);
        let (Some(used), Some(available)) = (used, available) else {
            return Vec::new();
        };
        // Behind its base while requests of an earlier backend are in flight.
        if std::mem::take(&mut self.is_new) && (used.wrapping_sub(self.next_used) as i16) < 0 {
            self.next_used = used;
        }
        self.next_used = self.at_most_a_round(self.next_used, used);
        self.next_available = self.at_most_a_round(self.next_available, available);
        let mut seen = Vec::new();
        while self.next_available != available || self.next_used != used {
            let before = seen.len();
            self.take_available(look, available, &mut seen);
            self.take_used(look.memory, used, &mut seen);
            if seen.len() == before && !self.skip(look.memory, available, used, &mut seen) {
                break;
            }
        }
        seen
    }

    fn index(&self, memory: &Memory, ring: u64) -> Option<u16> {
        let index = memory.user(ring.checked_add(2)?)?;
        Some(u16::from_le_bytes(index)).filter(|_| self.size > 0)
    }

    /// Who is further ahead than the ring is long has lost its place, or was not looked at.
    fn at_most_a_round(&self, next: u16, index: u16) -> u16 {
        match index.wrapping_sub(next) {
            ahead if ahead > self.size => index.wrapping_sub(self.size),
            _ => next,
        }
    }

    /// Up to a head that is in use still.
    fn take_available(&mut self, look: &Look<'_>, index: u16, seen: &mut Vec<Seen>) {
        while self.next_available != index {
            let Some(head) = self.available_head(look.memory) else {
                return;
            };
            if self.waiting.contains_key(&head) {
                return;
            }
            let buffers = self.buffers(look.memory, head);
            let chain = Chain {
                head,
                what: (look.describe)(&buffers),
                buffers,
                time: look.time,
            };
            self.waiting.insert(head, chain.clone());
            seen.push(Seen::Available(chain));
            self.next_available = self.next_available.wrapping_add(1);
        }
    }

    /// Up to a head that was not seen.
    fn take_used(&mut self, memory: &Memory, index: u16, seen: &mut Vec<Seen>) {
        while self.next_used != index {
            let Some((head, written)) = self.used_element(memory) else {
                return;
            };
            let Some(chain) = self.waiting.remove(&head) else {
                return;
            };
            seen.push(Seen::Used(head, Some(chain), written));
            self.next_used = self.next_used.wrapping_add(1);
        }
    }

    /// Goes past what does not fit together: a chain that was used before anybody looked, or
    /// that is available twice.
    fn skip(&mut self, memory: &Memory, available: u16, used: u16, seen: &mut Vec<Seen>) -> bool {
        if self.next_used != used {
            let Some((head, written)) = self.used_element(memory) else {
                return false;
            };
            seen.push(Seen::Used(head, None, written));
            self.next_used = self.next_used.wrapping_add(1);
            return true;
        }
        let head = self
            .available_head(memory)
            .filter(|_| self.next_available != available);
        head.is_some_and(|head| self.waiting.remove(&head).is_some())
    }

    fn available_head(&self, memory: &Memory) -> Option<u16> {
        let slot = u64::from(self.next_available.checked_rem(self.size)?);
        let head = memory.user(self.addresses.available.checked_add(4 + 2 * slot)?)?;
        Some(u16::from_le_bytes(head))
    }

    /// Head, and bytes written.
    fn used_element(&self, memory: &Memory) -> Option<(u16, u32)> {
        let slot = u64::from(self.next_used.checked_rem(self.size)?);
        let element = memory.user(self.addresses.used.checked_add(4 + 8 * slot)?)?;
        let element = u64::from_le_bytes(element);
        Some((element as u16, (element >> 32) as u32))
    }

    fn buffers(&self, memory: &Memory, head: u16) -> Vec<Buffer> {
        let mut buffers = Vec::new();
        let table = |at| memory.user(at);
        let end = self.follow(table, self.addresses.descriptors, head, &mut buffers);
        if let Some(indirect) = end {
            let table = |at| memory.guest(at);
            self.follow(table, indirect, 0, &mut buffers);
        }
        buffers
    }

    /// Follows a chain through a table. Returns the address of an indirect table.
    fn follow(
        &self,
        read: impl Fn(u64) -> Option<[u8; DESCRIPTOR as usize]>,
        table: u64,
        head: u16,
        buffers: &mut Vec<Buffer>,
    ) -> Option<u64> {
        let mut index = head;
        for _ in 0..self.size {
            let descriptor = read(table.checked_add(DESCRIPTOR * u64::from(index))?)?;
            let (address, rest) = descriptor.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let (flags, rest) = rest.split_first_chunk()?;
            let flags = u16::from_le_bytes(*flags);
            let address = u64::from_le_bytes(*address);
            if flags & INDIRECT != 0 {
                return Some(address);
            }
            buffers.push(Buffer {
                address,
                len: u32::from_le_bytes(*len),
                is_writable: flags & WRITE != 0,
            });
            if flags & NEXT == 0 {
                return None;
            }
            index = u16::from_le_bytes(*rest.first_chunk()?);
        }
        None
    }
}

#[cfg(test)]
#[path = "split_test.rs"]
mod tests;
