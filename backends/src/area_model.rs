//! An area of a ring in `loom`'s model of memory: a test that runs in it sees every order of
//! accesses that the memory model of the language allows.

use std::collections::BTreeMap;
use std::io;

use loom::sync::atomic::{AtomicU64, Ordering, fence};
use vm_memory::ByteValued;

use crate::area::Area;
use crate::look_again::Fence;

/// An area of fields, by their offsets. A field is always accessed as a whole.
pub struct ModelArea(BTreeMap<usize, AtomicU64>);

impl ModelArea {
    /// Fields with their first values.
    pub fn new(fields: impl IntoIterator<Item = (usize, u64)>) -> Self {
        let fields = fields.into_iter();
        ModelArea(
            fields
                .map(|(at, value)| (at, AtomicU64::new(value)))
                .collect(),
        )
    }

    fn field(&self, at: usize) -> &AtomicU64 {
        &self.0[&at]
    }
}

impl Fence for ModelArea {
    fn full() {
        fence(Ordering::SeqCst);
    }
}

impl Area for ModelArea {
    fn load(&self, at: usize, order: Ordering) -> io::Result<u16> {
        Ok(self.field(at).load(order) as u16)
    }

    fn store(&self, at: usize, value: u16, order: Ordering) -> io::Result<()> {
        self.field(at).store(value.into(), order);
        Ok(())
    }

    fn read<T: ByteValued>(&self, at: usize) -> io::Result<T> {
        let bytes = self.field(at).load(Ordering::Relaxed).to_le_bytes();
        let mut value = T::zeroed();
        let len = size_of::<T>();
        value.as_mut_slice().copy_from_slice(&bytes[..len]);
        Ok(value)
    }

    fn write<T: ByteValued>(&self, at: usize, value: T) -> io::Result<()> {
        let mut bytes = [0; 8];
        bytes[..size_of::<T>()].copy_from_slice(value.as_slice());
        let value = u64::from_le_bytes(bytes);
        self.field(at).store(value, Ordering::Relaxed);
        Ok(())
    }
}
