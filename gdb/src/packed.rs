//! A packed virtqueue, read from guest memory (virtio 1.3, section 2.8).
//!
//! Its one ring does not say where driver and device stand in it: a descriptor
//! that the device has skipped, because it belonged to a chain, looks as it did
//! before. So only the contents of each descriptor can be shown.

use crate::inspect::Virtqueue;
use crate::target::{PhysAddr, Result};

/// Bytes of a descriptor.
const DESCRIPTOR: usize = 16;

/// Descriptor flags beside those of split queues (section 2.8.13).
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Event suppression flags (section 2.8.14).
const DISABLE: u16 = 1;
const AT_ENTRY: u16 = 2;

/// Who wrote a descriptor last, as its two bits tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// The driver made it available.
    Available,
    /// The device used it, or nobody has touched it.
    Used,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    pub addr: PhysAddr,
    /// In bytes.
    pub len: u32,
    pub id: u16,
    /// Without those that tell the turn.
    pub flags: u16,
    pub turn: Turn,
    /// The writer's wrap counter.
    pub wrap: bool,
}

/// When one side wants to be notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Always,
    Never,
    /// When the other has got to this entry with this wrap counter.
    At {
        entry: u16,
        wrap: bool,
    },
    /// The flags have a value that is reserved.
    Reserved(u16),
}

/// A queue's memory, as it was at one moment.
#[derive(Debug)]
pub struct Ring {
    pub descriptors: Vec<Descriptor>,
    /// Of the driver: interrupts.
    pub driver: Wish,
    /// Of the device: kicks.
    pub device: Wish,
}

impl Ring {
    /// # Errors
    /// A part is not in RAM.
    pub fn read(
        queue: &Virtqueue,
        read: &dyn Fn(PhysAddr, &mut [u8]) -> Result<()>,
    ) -> Result<Self> {
        let mut ring = vec![0; DESCRIPTOR * usize::from(queue.size)];
        read(queue.descriptors, &mut ring)?;
        let wish = |at| {
            let mut bytes = [0; 4];
            read(at, &mut bytes)?;
            Ok(Wish::parse(bytes))
        };
        Ok(Self {
            descriptors: ring
                .as_chunks()
                .0
                .iter()
                .map(|bytes| Descriptor::parse(*bytes))
                .collect(),
            driver: wish(queue.available)?,
            device: wish(queue.used)?,
        })
    }
}

impl Descriptor {
    fn parse(bytes: [u8; DESCRIPTOR]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        let flags = (whole >> 112) as u16;
        let (avail, used) = (flags & AVAIL != 0, flags & USED != 0);
        Self {
            addr: PhysAddr(whole as u64),
            len: (whole >> 64) as u32,
            id: (whole >> 96) as u16,
            flags: flags & !(AVAIL | USED),
            turn: if avail == used {
                Turn::Used
            } else {
                Turn::Available
            },
            wrap: avail,
        }
    }
}

impl Wish {
    fn parse([low, high, flags, flags_high]: [u8; 4]) -> Self {
        let place = u16::from_le_bytes([low, high]);
        match u16::from_le_bytes([flags, flags_high]) {
            0 => Self::Always,
            DISABLE => Self::Never,
            AT_ENTRY => Self::At {
                entry: place & 0x7fff,
                wrap: place >> 15 != 0,
            },
            reserved => Self::Reserved(reserved),
        }
    }
}

#[cfg(test)]
#[path = "packed_test.rs"]
mod tests;
