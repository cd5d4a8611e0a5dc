//! The device's side of a virtqueue (virtio 1.4, sections 2.7 and 2.8).

mod access;
mod chain;
mod layout;
mod packed;
mod split;

use vm_memory::GuestMemoryMmap;

pub use chain::{Chain, RingError};
pub use layout::{Layout, RingFault, lengths};

use packed::PackedRing;
use split::SplitRing;

#[derive(Debug)]
pub enum Ring {
    Split(SplitRing),
    Packed(PackedRing),
}

impl Ring {
    /// # Errors
    /// The driver cannot be told when to kick.
    pub fn new(memory: &GuestMemoryMmap, layout: Layout, base: u32) -> Result<Self, RingError> {
        let ring = if layout.is_packed {
            Self::Packed(PackedRing::new(layout, base)?)
        } else {
            // The other bits are reserved.
            Self::Split(SplitRing::new(layout, base as u16))
        };
        ring.ask_for_kicks(memory)?;
        Ok(ring)
    }

    /// Where the ring is processed next, as GET_VRING_BASE returns it.
    pub fn base(&self) -> u32 {
        match self {
            Self::Split(ring) => ring.base(),
            Self::Packed(ring) => ring.base(),
        }
    }

    pub fn has_available(&self, memory: &GuestMemoryMmap) -> Result<bool, RingError> {
        match self {
            Self::Split(ring) => ring.has_available(memory),
            Self::Packed(ring) => ring.has_available(memory),
        }
    }

    /// The next chain.
    pub fn pop(&mut self, memory: &GuestMemoryMmap) -> Result<Option<Chain>, RingError> {
        match self {
            Self::Split(ring) => ring.pop(memory),
            Self::Packed(ring) => ring.pop(memory),
        }
    }

    /// Uses a chain. Returns whether the driver is to be notified.
    pub fn push(
        &mut self,
        memory: &GuestMemoryMmap,
        chain: &Chain,
        len: u32,
        fault: Option<RingFault>,
    ) -> Result<bool, RingError> {
        match fault {
            Some(RingFault::CallWithoutUse) => return Ok(true),
            Some(RingFault::Silence) => return Ok(false),
            _ => {}
        }
        match self {
            Self::Split(ring) => ring.push(memory, chain, len, fault),
            Self::Packed(ring) => ring.push(memory, chain, len, fault),
        }
    }

    /// Has the driver kick for the next buffer.
    pub fn ask_for_kicks(&self, memory: &GuestMemoryMmap) -> Result<(), RingError> {
        match self {
            Self::Split(ring) => ring.ask_for_kicks(memory),
            Self::Packed(ring) => ring.ask_for_kicks(memory),
        }
    }
}
