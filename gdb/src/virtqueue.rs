//! A split virtqueue, read from guest memory (virtio 1.3, section 2.7).
//!
//! Nothing is written, and the device is not asked, so that reading changes
//! nothing. The rings are the guest's: every index and address in them may be
//! wrong, and every walk here is bounded by the size of its table.

use crate::inspect::Virtqueue;
use crate::target::{PhysAddr, Result, TargetError};

/// Bytes of a descriptor, and of an element of the used ring.
const DESCRIPTOR: usize = 16;
const USED_ELEMENT: usize = 8;

/// Most descriptors of an indirect table that are looked at.
const MOST_INDIRECT: u32 = 1024;

/// Descriptor flags (virtio 1.3, section 2.7.5).
pub mod flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub addr: PhysAddr,
    /// In bytes.
    pub len: u32,
    pub flags: u16,
    pub next: u16,
}

/// A queue's memory, as it was at one moment.
#[derive(Debug)]
pub struct Rings {
    pub size: u16,
    pub table: Vec<Descriptor>,
    pub available_flags: u16,
    /// Where the driver puts the next entry.
    pub available_index: u16,
    /// Heads of chains by place.
    pub available: Vec<u16>,
    /// With EVENT_IDX: the used index at which the driver wants an interrupt.
    pub used_event: u16,
    pub used_flags: u16,
    /// Where the device puts the next element.
    pub used_index: u16,
    /// Head and length in bytes, by place.
    pub used: Vec<(u32, u32)>,
    /// With EVENT_IDX: the available index at which the device wants a kick.
    pub available_event: u16,
}

/// The chains that the driver has given and the device has yet to return.
#[derive(Debug, PartialEq, Eq)]
pub struct InFlight {
    /// How many, by the two indices. More than the size means a broken queue.
    pub count: u16,
    /// Heads that are in flight, the oldest first.
    pub heads: Vec<u16>,
    /// Heads of which some are in flight too, so that there are `count`.
    pub perhaps: Vec<u16>,
}

/// A descriptor of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    /// In the indirect table of the link before that is none itself.
    pub indirect: bool,
    pub descriptor: Descriptor,
}

/// Why a chain cannot be followed further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("descriptor {index} is beyond the table's {size}")]
    Index { index: u32, size: u32 },
    #[error("the chain comes back to descriptor {0}")]
    Loop(u32),
    #[error("descriptor {0}: an indirect table within an indirect table")]
    Nested(u32),
    #[error("descriptor {0}: an indirect table with a next descriptor")]
    IndirectNext(u32),
    #[error("descriptor {index}: an indirect table of {len} bytes, no multiple of 16")]
    TableLength { index: u32, len: u32 },
    #[error("descriptor {index}: the indirect table at {:#x} is not in RAM", .addr.0)]
    Table { index: u32, addr: PhysAddr },
    #[error(
        "descriptor {index}: an indirect table of {count}; no more than {MOST_INDIRECT} are shown"
    )]
    Long { index: u32, count: u32 },
}

type Read<'a> = &'a dyn Fn(PhysAddr, &mut [u8]) -> Result<()>;

/// How many places of a ring have been used: all, unless those behind the index
/// are still zero.
fn made<T: Default + PartialEq>(index: u16, ring: &[T]) -> u16 {
    let fresh = ring.get(index.into()..).unwrap_or_default();
    let is_new = !fresh.is_empty() && fresh.iter().all(|element| *element == T::default());
    if is_new { index } else { ring.len() as u16 }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn descriptors(bytes: &[u8]) -> Vec<Descriptor> {
    let descriptor = |bytes: &[u8]| Descriptor {
        addr: PhysAddr(u64::from(u32_at(bytes, 0)) | u64::from(u32_at(bytes, 4)) << 32),
        len: u32_at(bytes, 8),
        flags: u16_at(bytes, 12),
        next: u16_at(bytes, 14),
    };
    bytes.chunks_exact(DESCRIPTOR).map(descriptor).collect()
}

impl Rings {
    /// # Errors
    /// A part is not in RAM.
    pub fn read(queue: &Virtqueue, read: Read<'_>) -> Result<Self> {
        let size = usize::from(queue.size);
        let part = |addr: PhysAddr, len: usize| {
            let mut bytes = vec![0; len];
            addr.0
                .checked_add(len as u64)
                .ok_or(TargetError::NoRam(addr))?;
            read(addr, &mut bytes)?;
            Ok::<_, TargetError>(bytes)
        };
        let table = part(queue.descriptors, DESCRIPTOR * size)?;
        let available = part(queue.available, 6 + 2 * size)?;
        let used = part(queue.used, 6 + USED_ELEMENT * size)?;
        let element = |n| (u32_at(&used, 4 + 8 * n), u32_at(&used, 8 + 8 * n));
        Ok(Self {
            size: queue.size,
            table: descriptors(&table),
            available_flags: u16_at(&available, 0),
            available_index: u16_at(&available, 2),
            available: (0..size).map(|n| u16_at(&available, 4 + 2 * n)).collect(),
            used_event: u16_at(&available, 4 + 2 * size),
            used_flags: u16_at(&used, 0),
            used_index: u16_at(&used, 2),
            used: (0..size).map(element).collect(),
            available_event: u16_at(&used, 4 + 8 * size),
        })
    }

    /// The elements at these places, which count on as the indices do.
    pub fn available_at(&self, index: u16) -> u16 {
        self.available[usize::from(index % self.size)]
    }

    pub fn used_at(&self, index: u16) -> (u32, u32) {
        self.used[usize::from(index % self.size)]
    }

    /// The chains in flight, as far as the rings tell: they keep a queue's length
    /// of the past, and a device may return in any order.
    ///
    /// Let `given` and `returned` be how far back a head was last given and last
    /// returned. It is done if `returned <= given`, because a device returns no
    /// more than it was given. It is in flight if `returned` is further back than
    /// a queue's length before `given`, because no more can be in flight at once.
    /// Between the two it can be either, and only the count may tell. One that the
    /// device has been so slow with that its entry was written over is not seen,
    /// and another may be taken for it.
    pub fn in_flight(&self) -> InFlight {
        let count = self.available_index.wrapping_sub(self.used_index);
        if let Some(heads) = self.never_returned() {
            let perhaps = Vec::new();
            return InFlight {
                count,
                heads,
                perhaps,
            };
        }
        let (mut heads, mut perhaps) = (Vec::new(), Vec::new());
        let mut seen = vec![false; usize::from(self.size)];
        let made = made(self.available_index, &self.available);
        for given in 1..=made {
            let head = self.available_at(self.available_index.wrapping_sub(given));
            // Only the last time that a head was given counts.
            match seen.get_mut(usize::from(head)) {
                Some(true) => continue,
                Some(seen) => *seen = true,
                None => {}
            }
            match self.returned(head, count) {
                Some(returned) if returned <= given.into() => {}
                Some(returned) if returned < u32::from(given) + u32::from(self.size) => {
                    perhaps.push(head);
                }
                None if given > count => perhaps.push(head),
                _ => heads.push(head),
            }
        }
        heads.reverse();
        perhaps.reverse();
        if heads.len() >= count.into() {
            perhaps.clear();
        } else if heads.len() + perhaps.len() <= count.into() {
            heads.append(&mut perhaps);
        }
        InFlight {
            count,
            heads,
            perhaps,
        }
    }

    /// The chains in flight, while the rings hold everything since the queue's start.
    fn never_returned(&self) -> Option<Vec<u16>> {
        let is_new = self.used_index < self.size && made(self.used_index, &self.used) < self.size;
        let (given, returned) = (self.available_index.into(), self.used_index.into());
        let mut heads = self.available.get(..given).filter(|_| is_new)?.to_vec();
        for (head, _) in self.used.get(..returned)? {
            let first = heads.iter().position(|given| u32::from(*given) == *head);
            heads.remove(first?);
        }
        Some(heads)
    }

    /// How far behind the available index, which is `lag` before the used one,
    /// `head` was last returned.
    fn returned(&self, head: u16, lag: u16) -> Option<u32> {
        let is_head = |back: &u16| {
            let (returned, _) = self.used_at(self.used_index.wrapping_sub(*back));
            returned == u32::from(head)
        };
        let back = (1..=made(self.used_index, &self.used)).find(is_head)?;
        Some(u32::from(back) + u32::from(lag))
    }

    /// The chain that begins at `head`, as far as it can be followed.
    pub fn chain(&self, head: u16, read: Read<'_>) -> (Vec<Link>, Option<Broken>) {
        let mut links = Vec::new();
        let broken = follow(&self.table, head.into(), false, &mut links).err();
        let last = links.last().cloned();
        if let (None, Some(link)) = (&broken, last)
            && link.descriptor.flags & flag::INDIRECT != 0
        {
            let broken = indirect(&link, read, &mut links).err();
            return (links, broken);
        }
        (links, broken)
    }
}

fn follow(
    table: &[Descriptor],
    head: u32,
    is_indirect: bool,
    links: &mut Vec<Link>,
) -> std::result::Result<(), Broken> {
    let mut seen = vec![false; table.len()];
    let mut index = head;
    loop {
        let Some(&descriptor) = table.get(index as usize) else {
            let size = table.len() as u32;
            return Err(Broken::Index { index, size });
        };
        if std::mem::replace(&mut seen[index as usize], true) {
            return Err(Broken::Loop(index));
        }
        links.push(Link {
            index,
            indirect: is_indirect,
            descriptor,
        });
        let flags = descriptor.flags;
        if flags & flag::INDIRECT != 0 && is_indirect {
            return Err(Broken::Nested(index));
        }
        if flags & flag::INDIRECT != 0 && flags & flag::NEXT != 0 {
            return Err(Broken::IndirectNext(index));
        }
        if flags & flag::NEXT == 0 {
            return Ok(());
        }
        index = descriptor.next.into();
    }
}

fn indirect(link: &Link, read: Read<'_>, links: &mut Vec<Link>) -> std::result::Result<(), Broken> {
    let (index, Descriptor { addr, len, .. }) = (link.index, link.descriptor);
    if len == 0 || !len.is_multiple_of(DESCRIPTOR as u32) {
        return Err(Broken::TableLength { index, len });
    }
    let count = len / DESCRIPTOR as u32;
    if count > MOST_INDIRECT {
        return Err(Broken::Long { index, count });
    }
    let mut bytes = vec![0; len as usize];
    read(addr, &mut bytes).map_err(|_| Broken::Table { index, addr })?;
    follow(&descriptors(&bytes), 0, true, links)
}

#[cfg(test)]
#[path = "virtqueue_test.rs"]
mod tests;
