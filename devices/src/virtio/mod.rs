//! virtio over MMIO (virtio 1.3, section 4.2).

pub mod page;
