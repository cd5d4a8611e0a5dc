//! Descriptors of both formats of ring.

pub const DESCRIPTOR: usize = 16;

/// VIRTQ_DESC_F_NEXT
pub const NEXT: u16 = 1;
/// VIRTQ_DESC_F_WRITE
pub const WRITE: u16 = 2;
/// VIRTQ_DESC_F_INDIRECT
pub const INDIRECT: u16 = 4;

/// A part of a chain in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    /// The device writes it; it may only read others.
    pub is_writable: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    pub address: u64,
    pub len: u32,
    pub flags: u16,
    /// The next one's number in a split ring, the buffer ID in a packed one.
    pub number: u16,
}

impl Descriptor {
    /// Virtio 1.4, section 2.7.5.
    pub fn split(bytes: [u8; DESCRIPTOR]) -> Self {
        let whole = u128::from_le_bytes(bytes);
        Self {
            address: whole as u64,
            len: (whole >> 64) as u32,
            flags: (whole >> 96) as u16,
            number: (whole >> 112) as u16,
        }
    }

    /// Section 2.8.13: number and flags have changed places.
    pub fn packed(bytes: [u8; DESCRIPTOR]) -> Self {
        let Descriptor { flags, number, .. } = Self::split(bytes);
        Self {
            flags: number,
            number: flags,
            ..Self::split(bytes)
        }
    }

    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub fn buffer(&self) -> Buffer {
        Buffer {
            address: self.address,
            len: self.len,
            is_writable: self.has(WRITE),
        }
    }
}
