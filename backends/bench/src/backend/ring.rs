//! The device's side of a split virtqueue (virtio 1.4, section 2.7).

use std::sync::atomic::{Ordering, fence};

use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use super::history::Trouble;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// VIRTQ_AVAIL_F_NO_INTERRUPT
const NO_INTERRUPT: u16 = 1;
const DESCRIPTOR: u64 = 16;
/// Descriptors of one chain; more is a loop.
const MOST: usize = 1 << 16;

/// What a device does wrong in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// The used index moves by more than the ring has.
    IndexJumps,
    /// An id beyond the descriptor table.
    IdTooLarge,
    /// Each chain is used twice.
    UsedTwice,
    /// The length is more than the driver's buffers have.
    LengthTooLong,
    /// Nothing is used, and the driver is notified.
    CallWithoutUse,
    /// Nothing is ever used.
    Silence,
}

/// What a chain has, in its order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    pub head: u16,
    pub readable: Vec<(GuestAddress, u32)>,
    pub writable: Vec<(GuestAddress, u32)>,
}

/// What is wrong with a ring: no more can be told of it then.
pub type RingError = (Trouble, String);

#[derive(Debug)]
pub struct Ring {
    size: u16,
    descriptors: GuestAddress,
    available: GuestAddress,
    used: GuestAddress,
    next: u16,
    event_idx: bool,
}

impl Ring {
    /// # Errors
    /// The used ring's index cannot be read.
    pub fn new(
        memory: &GuestMemoryMmap,
        size: u16,
        [descriptors, available, used]: [GuestAddress; 3],
        base: u16,
        event_idx: bool,
    ) -> Result<Self, RingError> {
        let ring = Self {
            size,
            descriptors,
            available,
            used,
            next: base,
            event_idx,
        };
        ring.ask_for_kicks(memory)?;
        Ok(ring)
    }

    /// The index of the available ring that is processed next.
    pub fn next(&self) -> u16 {
        self.next
    }

    pub fn has_available(&self, memory: &GuestMemoryMmap) -> Result<bool, RingError> {
        let index: u16 = self.load(memory, self.available, 2)?;
        let pending = index.wrapping_sub(self.next);
        if pending > self.size {
            let text = format!(
                "the available index is {index}, {pending} after {}, and the ring has {}",
                self.next, self.size
            );
            return Err((Trouble::Index, text));
        }
        Ok(pending > 0)
    }

    /// The next chain.
    pub fn pop(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, RingError> {
        if !self.has_available(memory)? {
            return Ok(None);
        }
        let slot = u64::from(self.next % self.size);
        let head: u16 = self.load(memory, self.available, 4 + 2 * slot)?;
        let chain = self.read_chain(memory, head)?;
        self.next = self.next.wrapping_add(1);
        Ok(Some(chain))
    }

    fn read_chain(&self, memory: &GuestMemoryMmap, head: u16) -> Result<Chain, RingError> {
        let mut chain = Chain {
            head,
            ..Chain::default()
        };
        let (mut table, mut len, mut index) = (self.descriptors, self.size, head);
        for _ in 0..MOST {
            if index >= len {
                let text = format!("descriptor {index} of a table of {len} (head {head})");
                return Err((Trouble::Descriptor, text));
            }
            let at = DESCRIPTOR * u64::from(index);
            let addr: u64 = self.load(memory, table, at)?;
            let bytes: u32 = self.load(memory, table, at + 8)?;
            let flags: u16 = self.load(memory, table, at + 12)?;
            let next: u16 = self.load(memory, table, at + 14)?;
            if flags & INDIRECT != 0 {
                (table, index) = (GuestAddress(addr), 0);
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

    /// Uses a chain. Returns whether the driver is to be notified.
    pub fn push(
        &self,
        memory: &GuestMemoryMmap,
        head: u16,
        len: u32,
        fault: Option<RingFault>,
    ) -> Result<bool, RingError> {
        let old: u16 = self.load(memory, self.used, 2)?;
        let (id, len) = match fault {
            Some(RingFault::IdTooLarge) => (u32::from(self.size) + 7, len),
            Some(RingFault::LengthTooLong) => (head.into(), u32::MAX),
            _ => (head.into(), len),
        };
        let count = match fault {
            Some(RingFault::CallWithoutUse) => return Ok(true),
            Some(RingFault::Silence) => return Ok(false),
            Some(RingFault::UsedTwice) => 2,
            Some(RingFault::IndexJumps) => self.size.wrapping_mul(2) | 1,
            _ => 1,
        };
        for n in 0..count.min(2) {
            let slot = u64::from(old.wrapping_add(n) % self.size);
            self.write(memory, 4 + 8 * slot, &u32::to_le_bytes(id))?;
            self.write(memory, 8 + 8 * slot, &len.to_le_bytes())?;
        }
        let new = old.wrapping_add(count);
        let place = self.used.0.wrapping_add(2);
        memory
            .store(new.to_le(), GuestAddress(place), Ordering::Release)
            .map_err(|_| unreachable(GuestAddress(place)))?;
        fence(Ordering::SeqCst);
        self.wants_call(memory, old, new)
    }

    fn wants_call(&self, memory: &GuestMemoryMmap, old: u16, new: u16) -> Result<bool, RingError> {
        if !self.event_idx {
            return Ok(self.load::<u16>(memory, self.available, 0)? & NO_INTERRUPT == 0);
        }
        let event: u16 = self.load(memory, self.available, 4 + 2 * u64::from(self.size))?;
        Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old))
    }

    /// Has the driver kick for the next buffer.
    pub fn ask_for_kicks(&self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        if self.event_idx {
            let place = 4 + 8 * u64::from(self.size);
            self.write(memory, place, &self.next.to_le_bytes())?;
        }
        self.write(memory, 0, &0u16.to_le_bytes())?;
        fence(Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, memory: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<(), RingError> {
        let place = GuestAddress(self.used.0.wrapping_add(at));
        memory
            .write_slice(bytes, place)
            .map_err(|_| unreachable(place))
    }

    fn load<T>(&self, memory: &GuestMemoryMmap, part: GuestAddress, at: u64) -> Result<T, RingError>
    where
        T: vm_memory::AtomicAccess + LittleEndian,
    {
        let place = GuestAddress(part.0.wrapping_add(at));
        let loaded = memory.load::<T>(place, Ordering::Acquire);
        loaded
            .map(LittleEndian::to_native)
            .map_err(|_| unreachable(place))
    }
}

fn unreachable(place: GuestAddress) -> RingError {
    let text = format!("guest address {:#x} of a ring is in no region", place.0);
    (Trouble::Unreachable, text)
}

impl Chain {
    fn push(
        &mut self,
        memory: &GuestMemoryMmap,
        (addr, len): (GuestAddress, u32),
        is_writable: bool,
    ) -> Result<(), RingError> {
        if !memory.check_range(addr, len as usize, Permissions::Read) {
            let (head, addr) = (self.head, addr.0);
            let text = format!("{len} bytes at guest address {addr:#x} (head {head})");
            return Err((Trouble::Buffer, text));
        }
        if is_writable {
            self.writable.push((addr, len));
            return Ok(());
        }
        if !self.writable.is_empty() {
            let text = format!("the chain of head {}", self.head);
            return Err((Trouble::Order, text));
        }
        self.readable.push((addr, len));
        Ok(())
    }
}

/// Numbers of a ring.
pub trait LittleEndian: Copy {
    fn to_native(self) -> Self;
}

macro_rules! little_endian {
    ($($number:ty),*) => {$(
        impl LittleEndian for $number {
            fn to_native(self) -> Self {
                Self::from_le(self)
            }
        }
    )*};
}

little_endian!(u16, u32, u64);
