//! The three areas of a virtqueue in memory (virtio 1.4, section 2.6): of the descriptors, of the
//! driver, and of the device. Driver and device access them at the same time.
//!
//! The code of split and packed rings is written against [`Area`]: what devices use is in guest
//! memory ([`crate::ram_area`]), and the tests put a model of the memory of all processors in its
//! place.

use std::io;
use std::sync::atomic::Ordering;

use vm_memory::ByteValued;

use crate::look_again::Fence;

/// An area, whose fields are at offsets in bytes.
pub trait Area: Fence {
    /// Reads a field that orders others, in the host's byte order.
    fn load(&self, at: usize, order: Ordering) -> io::Result<u16>;

    /// Writes one.
    fn store(&self, at: usize, value: u16, order: Ordering) -> io::Result<()>;

    /// Reads a field that is ordered by others.
    fn read<T: ByteValued>(&self, at: usize) -> io::Result<T>;

    /// Writes one.
    fn write<T: ByteValued>(&self, at: usize, value: T) -> io::Result<()>;
}

/// The three areas of a ring.
#[derive(Debug)]
pub struct Areas<A> {
    pub descriptors: A,
    pub driver: A,
    pub device: A,
}
