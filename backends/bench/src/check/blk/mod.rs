//! Block devices (virtio 1.4, section 5.2).

pub mod bounds;
pub mod cache;
mod disk;
pub mod offered;
pub mod requests;
pub mod write;
