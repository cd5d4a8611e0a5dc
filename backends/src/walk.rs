//! The descriptors of a chain whose head is known though the available ring does not name it.
//!
//! `virtio_queue` follows chains only from the available ring, whose entry a driver may long have
//! overwritten when a request is taken up again. This walks as `virtio_queue::DescriptorChain`
//! does, bounds and silent ends included.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

/// Size of a descriptor (virtio 1.3, section 2.7.5).
const SIZE: u64 = size_of::<Descriptor>() as u64;

/// Walks a chain; ends where it ends or cannot be followed.
pub struct Walk<'m, M> {
    memory: &'m M,
    table: GuestAddress,
    /// Descriptors in the table.
    entries: u32,
    next: Option<u16>,
    /// Descriptors that may still follow: a chain without loops has no more than its table.
    room: u32,
    bytes: u32,
    indirect: bool,
}

impl<'m, M: GuestMemory> Walk<'m, M> {
    /// The chain at `head` of a descriptor table of `entries` entries.
    pub fn new(memory: &'m M, table: GuestAddress, entries: u16, head: u16) -> Self {
        Walk {
            memory,
            table,
            entries: u32::from(entries),
            next: Some(head),
            room: u32::from(entries),
            bytes: 0,
            indirect: false,
        }
    }

    fn read(&self, index: u16) -> Option<Descriptor> {
        let at = self.table.checked_add(SIZE * u64::from(index))?;
        let inside = self.room > 0 && u32::from(index) < self.entries;
        inside.then(|| self.memory.read_obj(at).ok())?
    }

    /// Goes on in the table that `descriptor` is for (virtio 1.3, section 2.7.5.3).
    fn enter(&mut self, descriptor: &Descriptor) -> Option<Descriptor> {
        let len = descriptor.len();
        let entries = len / SIZE as u32;
        let usable =
            !self.indirect && len.is_multiple_of(SIZE as u32) && entries <= u16::MAX.into();
        if !usable {
            return None;
        }
        self.table = descriptor.addr();
        self.entries = entries;
        self.room = entries;
        self.indirect = true;
        self.read(0)
    }
}

impl<M: GuestMemory> Iterator for Walk<'_, M> {
    type Item = Descriptor;

    fn next(&mut self) -> Option<Descriptor> {
        let index = self.next.take()?;
        let mut descriptor = self.read(index)?;
        if descriptor.refers_to_indirect_table() {
            descriptor = self.enter(&descriptor)?;
            if descriptor.refers_to_indirect_table() {
                return None;
            }
        }
        // virtio 1.3, section 2.7.5.2: less than 2^32 bytes in all.
        self.bytes = self.bytes.checked_add(descriptor.len())?;
        self.room -= 1;
        self.next = descriptor.has_next().then(|| descriptor.next());
        Some(descriptor)
    }
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod tests;
