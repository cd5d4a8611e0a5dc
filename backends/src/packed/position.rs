//! A side's position in a packed ring.

use virtio_bindings::virtio_ring::{VRING_PACKED_DESC_F_AVAIL, VRING_PACKED_DESC_F_USED};

pub const AVAIL: u16 = 1 << VRING_PACKED_DESC_F_AVAIL;
pub const USED: u16 = 1 << VRING_PACKED_DESC_F_USED;
/// The bit pair that says whose a descriptor is (virtio 1.3, section 2.8.1).
pub const OWNER: u16 = AVAIL | USED;

/// A place in the ring, in one of its laps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub index: u16,
    /// The wrap counter.
    pub wrap: bool,
}

impl Position {
    /// Where a ring begins (section 2.8.1).
    pub const START: Position = Position {
        index: 0,
        wrap: true,
    };

    /// As the vhost-user document has it in half of a vring base.
    pub fn from_bits(bits: u16) -> Self {
        Position {
            index: bits & 0x7fff,
            wrap: bits & 0x8000 != 0,
        }
    }

    pub fn bits(self) -> u16 {
        self.index | u16::from(self.wrap) << 15
    }

    /// `by` descriptors on, of a ring that has `size`, and at least as many.
    pub fn advanced(self, by: u16, size: u16) -> Self {
        let index = u32::from(self.index) + u32::from(by);
        if index < u32::from(size) {
            return Position {
                index: index as u16,
                ..self
            };
        }
        Position {
            index: (index - u32::from(size)) as u16,
            wrap: !self.wrap,
        }
    }

    /// `by` descriptors back.
    pub(super) fn retreated(self, by: u16, size: u16) -> Self {
        match self.index.checked_sub(by) {
            Some(index) => Position { index, ..self },
            None => Position {
                index: self.index + size - by,
                wrap: !self.wrap,
            },
        }
    }

    /// The flags of a descriptor that the driver has made available in this lap.
    pub fn available(self) -> u16 {
        if self.wrap { AVAIL } else { USED }
    }

    /// The flags of one that the device has used in this lap.
    pub(super) fn used(self) -> u16 {
        if self.wrap { OWNER } else { 0 }
    }
}
