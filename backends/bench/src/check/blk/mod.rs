//! Block devices (virtio 1.4, section 5.2).

pub mod bounds;
mod disk;
pub mod offered;
pub mod requests;
pub mod write;
