//! The descriptors of a chain of a split ring, from its head on.
//!
//! A walk ends silently at a descriptor that it cannot follow: the last one then still says
//! that another one follows.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, VolatileMemory};

use crate::page_log::{GuestRam, GuestSlice};

/// Size of a descriptor (virtio 1.4, section 2.7.5).
const SIZE: u64 = size_of::<Descriptor>() as u64;

/// A table of descriptors.
#[derive(Debug, Clone, Copy)]
pub struct Table<'m> {
    place: Place<'m>,
    entries: u32,
}

#[derive(Debug, Clone, Copy)]
enum Place<'m> {
    /// In one piece of guest memory.
    Whole(GuestSlice<'m>),
    /// Across several.
    Scattered(GuestAddress),
}

impl<'m> Table<'m> {
    /// The ring's own.
    pub fn of(descriptors: GuestSlice<'m>, entries: u16) -> Self {
        Table {
            place: Place::Whole(descriptors),
            entries: entries.into(),
        }
    }

    /// A table that a descriptor is for (section 2.7.5.3).
    fn indirect(memory: &'m GuestRam, descriptor: &Descriptor) -> Option<Self> {
        let (at, len) = (descriptor.addr(), descriptor.len());
        let entries = len / SIZE as u32;
        if !len.is_multiple_of(SIZE as u32) || entries > u16::MAX.into() {
            return None;
        }
        let place = match GuestMemoryBackend::get_slice(memory, at, len as usize) {
            Ok(slice) => Place::Whole(slice),
            Err(_) => Place::Scattered(at),
        };
        Some(Table { place, entries })
    }

    #[inline]
    fn read(&self, memory: &GuestRam, index: u16) -> Option<Descriptor> {
        if u32::from(index) >= self.entries {
            return None;
        }
        let offset = SIZE * u64::from(index);
        match self.place {
            Place::Whole(slice) => Some(slice.get_ref(offset as usize).ok()?.load()),
            Place::Scattered(at) => memory.read_obj(at.checked_add(offset)?).ok(),
        }
    }
}

/// Walks a chain; ends where it ends or cannot be followed.
#[derive(Debug)]
pub struct Walk<'m> {
    memory: &'m GuestRam,
    table: Table<'m>,
    next: Option<u16>,
    /// Descriptors that may still follow: a chain without loops has no more than its table.
    room: u32,
    bytes: u32,
    indirect: bool,
}

impl<'m> Walk<'m> {
    /// The chain at `head` of a descriptor table.
    pub fn new(memory: &'m GuestRam, table: Table<'m>, head: u16) -> Self {
        Walk {
            memory,
            room: table.entries,
            table,
            next: Some(head),
            bytes: 0,
            indirect: false,
        }
    }

    #[inline]
    fn read(&self, index: u16) -> Option<Descriptor> {
        (self.room > 0).then(|| self.table.read(self.memory, index))?
    }

    /// Continues in the table that `descriptor` is for.
    fn enter(&mut self, descriptor: &Descriptor) -> Option<Descriptor> {
        if self.indirect {
            return None;
        }
        self.table = Table::indirect(self.memory, descriptor)?;
        self.room = self.table.entries;
        self.indirect = true;
        self.read(0)
    }
}

impl Iterator for Walk<'_> {
    type Item = Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Descriptor> {
        let index = self.next.take()?;
        let mut descriptor = self.read(index)?;
        if descriptor.refers_to_indirect_table() {
            descriptor = self.enter(&descriptor)?;
            if descriptor.refers_to_indirect_table() {
                return None;
            }
        }
        // virtio 1.4, section 2.7.5.2: less than 2^32 bytes in all.
        self.bytes = self.bytes.checked_add(descriptor.len())?;
        self.room -= 1;
        self.next = descriptor.has_next().then(|| descriptor.next());
        Some(descriptor)
    }
}

#[cfg(test)]
#[path = "walk_test.rs"]
mod tests;
