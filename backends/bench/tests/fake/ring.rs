//! The fake backend's split ring, which fills each buffer with random bytes.

use std::fs::File;
use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::{Break, Memory, signal};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

pub struct Ring {
    what: Break,
    pub size: u16,
    pub descriptors: GuestAddress,
    pub available: GuestAddress,
    pub used: GuestAddress,
    pub kick: Option<File>,
    pub call: Option<File>,
    pub started: bool,
    pub enabled: bool,
    pub event_idx: bool,
    next: u16,
    random: u64,
}

impl Ring {
    pub fn new(what: Break) -> Self {
        Self {
            what,
            size: 0,
            descriptors: GuestAddress(0),
            available: GuestAddress(0),
            used: GuestAddress(0),
            kick: None,
            call: None,
            started: false,
            enabled: false,
            event_idx: false,
            next: 0,
            random: 1,
        }
    }

    pub fn take_kick(&mut self) {
        if let Some(kick) = &self.kick {
            let _ = rustix::io::read(kick, &mut [0; 8]);
        }
    }

    pub fn set_base(&mut self, base: u16) {
        self.next = base;
    }

    pub fn base(&self) -> u32 {
        let off = u16::from(self.what == Break::BaseOffByOne);
        self.next.wrapping_add(off).into()
    }

    pub fn process(&mut self, memory: &Memory) {
        if self.started && self.enabled && self.size > 0 {
            while self.process_one(memory).is_some() {
                if self.what == Break::OneChainAKick {
                    return;
                }
            }
        }
    }

    fn process_one(&mut self, memory: &Memory) -> Option<()> {
        let map = &memory.map;
        let index: u16 = map
            .load(self.available.unchecked(2), Ordering::Acquire)
            .ok()?;
        let mut waiting = index.wrapping_sub(self.next);
        if self.what == Break::IndexWrapsWithRing && index < self.next {
            waiting = 0;
        }
        if self.what == Break::TakesSpuriousKicks && waiting == 0 && self.next > 0 {
            self.next = self.next.wrapping_sub(1);
            self.random = 7;
            waiting = 1;
            self.started = false;
        }
        if waiting == 0 || waiting > self.size {
            self.ask_for_kicks(memory, index);
            return None;
        }
        let slot = u64::from(self.next % self.size);
        let head: u16 = map.read_obj(self.available.unchecked(4 + 2 * slot)).ok()?;
        self.next = self.next.wrapping_add(1);
        let buffers = self.chain(memory, head)?;
        let wrote = self.fill(memory, &buffers)?;
        if self.what == Break::WritesDescriptors {
            let place = self.descriptors.unchecked(16 * u64::from(head) + 8);
            map.write_obj(0u32, place).ok()?;
        }
        let id = if self.what == Break::UsedIdIsSlot {
            slot as u16
        } else {
            head
        };
        self.put_used(memory, id, wrote)?;
        if self.what == Break::WritesAfterUse {
            std::thread::sleep(std::time::Duration::from_millis(2));
            map.write_obj(!0u8, buffers.first()?.0).ok()?;
        }
        Some(())
    }

    /// With EVENT_IDX the driver has to tell of the buffer that it makes available next.
    fn ask_for_kicks(&self, memory: &Memory, index: u16) {
        let place = self.used.unchecked(4 + 8 * u64::from(self.size));
        if self.event_idx && self.what != Break::NeverResumesKicks {
            let _ = memory.map.write_obj(index, place);
            fence(Ordering::SeqCst);
        }
    }

    /// The writable buffers of a chain.
    fn chain(&self, memory: &Memory, head: u16) -> Option<Vec<(GuestAddress, u32)>> {
        let mut buffers = Vec::new();
        let (mut table, mut size, mut index) = (self.descriptors, self.size, head);
        let mut most = usize::from(self.size);
        while most > 0 && index < size {
            if self.what != Break::FollowsLoops {
                most -= 1;
            }
            let bytes: [u8; 16] = memory
                .map
                .read_obj(table.unchecked(16 * u64::from(index)))
                .ok()?;
            let addr = u64::from_le_bytes(*bytes.first_chunk()?);
            let len = u32::from_le_bytes(*bytes[8..].first_chunk()?);
            let flags = u16::from_le_bytes(*bytes[12..].first_chunk()?);
            if flags & INDIRECT != 0 && self.what != Break::IgnoresIndirect {
                if table != self.descriptors {
                    return None;
                }
                if flags & WRITE != 0 && self.what == Break::IndirectNeedsNoWrite {
                    return None;
                }
                (table, size, index) = (GuestAddress(addr), (len / 16) as u16, 0);
                continue;
            }
            if flags & WRITE != 0 {
                buffers.push((GuestAddress(addr), len));
            }
            if flags & NEXT == 0 {
                let is_refused = self.what == Break::RefusesSeveral && buffers.len() > 1;
                return (!is_refused).then_some(buffers);
            }
            index = u16::from_le_bytes(*bytes[14..].first_chunk()?);
        }
        None
    }

    /// Fills the buffers; returns the length that the driver is told.
    fn fill(&mut self, memory: &Memory, buffers: &[(GuestAddress, u32)]) -> Option<u32> {
        let mut wrote = 0;
        for (addr, len) in buffers {
            if !memory.map.check_range(*addr, *len as usize) {
                return None;
            }
            let mut bytes: Vec<u8> = (0..*len).map(|_| self.byte()).collect();
            if self.what == Break::WritesHalf {
                bytes.truncate(bytes.len() / 2);
            }
            if self.what == Break::WritesBehindBuffer {
                bytes.push(0);
            }
            if self.what == Break::WritesNothing {
                return Some(0);
            }
            memory.map.write_slice(&bytes, *addr).ok()?;
            wrote += len;
        }
        let more = if self.what == Break::LengthTooLong {
            1
        } else {
            0
        };
        Some(wrote + more)
    }

    fn byte(&mut self) -> u8 {
        if self.what == Break::SameBytes {
            return 0x42;
        }
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.random >> 56) as u8
    }

    fn put_used(&mut self, memory: &Memory, id: u16, len: u32) -> Option<()> {
        let map = &memory.map;
        let index: u16 = map.load(self.used.unchecked(2), Ordering::Acquire).ok()?;
        let place = self.used.unchecked(4 + 8 * u64::from(index % self.size));
        map.write_obj(u32::from(id), place).ok()?;
        map.write_obj(len, place.unchecked(4)).ok()?;
        map.store(
            index.wrapping_add(1),
            self.used.unchecked(2),
            Ordering::Release,
        )
        .ok()?;
        fence(Ordering::SeqCst);
        if self.notifies(memory, index)? {
            match &self.call {
                Some(call) => signal(call),
                None if self.what == Break::NeedsCall => self.started = false,
                None => {}
            }
        }
        Some(())
    }

    /// Whether the driver wants to hear of the used entry that was put at `index`.
    fn notifies(&self, memory: &Memory, index: u16) -> Option<bool> {
        match self.what {
            Break::NeverNotifies => return Some(false),
            Break::AlwaysNotifies => return Some(true),
            _ => {}
        }
        if !self.event_idx {
            let flags: u16 = memory.map.read_obj(self.available).ok()?;
            return Some(flags & 1 == 0);
        }
        let place = self.available.unchecked(4 + 2 * u64::from(self.size));
        let event: u16 = memory.map.read_obj(place).ok()?;
        let off = u16::from(self.what == Break::EventOffByOne);
        Some(index == event.wrapping_add(off))
    }
}

/// Addresses are checked when memory is accessed.
trait Unchecked {
    fn unchecked(self, offset: u64) -> Self;
}

impl Unchecked for GuestAddress {
    fn unchecked(self, offset: u64) -> Self {
        GuestAddress(self.0.wrapping_add(offset))
    }
}
