//! Follows virtqueues between a driver and a device, as somebody who is neither of them: where
//! both stand, what is in a chain, and which chains are in flight.
//!
//! What is read may change at any moment, and may be nonsense. Nothing is taken for granted but
//! the size of a ring, and each walk ends after as many descriptors as there can be.
//!
//! A [`SplitRing`] and a [`PackedRing`] are the layouts of a ring in memory. They know nothing of
//! how far somebody has come in them, which is an index for a split ring and a [`Position`] for a
//! packed one. [`InFlight`] has the chains between both ends.

mod area;
mod chain;
mod contents;
mod descriptor;
mod in_flight;
mod packed;
mod position;
mod split;

pub use chain::Chain;
pub use contents::{last, read};
pub use descriptor::Buffer;
pub use in_flight::InFlight;
pub use packed::PackedRing;
pub use position::Position;
pub use split::SplitRing;

/// No ring has more descriptors (virtio 1.4, sections 2.7 and 2.8).
pub const MOST_DESCRIPTORS: u16 = 1 << 15;

/// Where the parts of a ring are, as SET_VRING_ADDR names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Descriptor table, or descriptor ring.
    pub descriptors: u64,
    /// Available ring, or driver event suppression.
    pub driver: u64,
    /// Used ring, or device event suppression.
    pub device: u64,
}

/// What a device says of a chain that it has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Under which the driver made the chain available; in a split ring its first descriptor.
    pub id: u32,
    /// Bytes that were written.
    pub len: u32,
}

impl Used {
    /// A chain that this id can mean: ids have 16 bits.
    pub fn chain(&self) -> Option<u16> {
        u16::try_from(self.id).ok()
    }
}

#[cfg(test)]
#[path = "follow_test.rs"]
mod tests;
