//! The descriptor that both sides write into a packed ring.

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};

/// Size of a descriptor in bytes, and where its fields are (section 2.8.13).
pub const SIZE: usize = 16;
pub const LEN: usize = 8;
pub const ID: usize = 12;
pub const FLAGS: usize = 14;

pub const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

/// A descriptor of the ring (virtio 1.4, section 2.8.13), in the host's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}
