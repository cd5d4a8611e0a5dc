//! A part of a ring, in memory that others change at any moment.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, VolatileSlice};

use crate::interpose::Memory;

/// What lies outside of it reads as zeros, and is not written.
pub struct Area<'a>(VolatileSlice<'a, ()>);

impl<'a> Area<'a> {
    /// At an address that the frontend uses for rings.
    pub fn at(memory: &'a Memory, address: u64, len: usize) -> Option<Self> {
        memory.user_slice(address, len).map(Self)
    }

    /// Sees all that was written before the value was.
    pub fn load(&self, at: usize) -> u16 {
        self.0.load(at, Ordering::Acquire).map_or(0, u16::from_le)
    }

    /// Is seen behind all that was written before.
    pub fn store(&self, at: usize, value: u16) {
        let _ = self.0.store(value.to_le(), at, Ordering::Release);
    }

    pub fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        let _ = self.0.read_slice(&mut bytes, at);
        bytes
    }

    pub fn put(&self, at: usize, bytes: &[u8]) {
        let _ = self.0.write_slice(bytes, at);
    }

    /// Is then as the other is.
    pub fn copy(&self, other: &Area<'_>) {
        let mut bytes = vec![0; other.0.len()];
        other.0.copy_to(&mut bytes);
        self.put(0, &bytes);
    }
}
