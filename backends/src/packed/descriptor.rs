//! The descriptor that both sides write into a packed ring.

/// A descriptor of the ring (virtio 1.4, section 2.8.13), in the host's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
    pub flags: u16,
}
