//! Chains of buffers, as the driver has written them.

use super::MOST_DESCRIPTORS;
use super::descriptor::{Buffer, DESCRIPTOR, Descriptor, INDIRECT, NEXT};
use crate::interpose::Memory;

/// How the entries of an indirect table follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOrder {
    /// By their next fields, from the first on (virtio 1.4, section 2.7.5.3).
    Linked,
    /// All of them, one behind the other (section 2.8.7).
    InSequence,
}

/// What the driver has made available.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// Under which it comes back.
    pub id: u16,
    /// Descriptors of the ring that it takes.
    pub descriptors: u16,
    pub buffers: Vec<Buffer>,
    /// Buffers before those of an indirect table.
    pub table_after: Option<u16>,
    /// Why it is not a chain that a driver may make. The buffers are those before that.
    pub trouble: Option<String>,
}

impl Chain {
    pub fn push(&mut self, descriptor: &Descriptor) {
        self.buffers.push(descriptor.buffer());
    }

    /// Follows links through a table from its first descriptor on. Returns the descriptor of an
    /// indirect table, if the chain ends with one.
    pub fn follow(
        &mut self,
        size: u16,
        read: impl Fn(u16) -> [u8; DESCRIPTOR],
        head: u16,
    ) -> Option<Descriptor> {
        let mut index = head;
        for _ in 0..size {
            if index >= size {
                self.trouble = Some(format!("descriptor {index} is in no table"));
                return None;
            }
            let descriptor = Descriptor::split(read(index));
            if descriptor.has(INDIRECT) {
                return Some(descriptor);
            }
            self.push(&descriptor);
            if !descriptor.has(NEXT) {
                return None;
            }
            index = descriptor.number;
        }
        // None of them can come twice.
        self.trouble = Some("its descriptors are a loop".into());
        None
    }

    /// Reads the table that an indirect descriptor stands for.
    pub fn read_table(&mut self, memory: &Memory, table: &Descriptor, order: TableOrder) {
        self.table_after = Some(self.buffers.len() as u16);
        let most = usize::from(MOST_DESCRIPTORS) * DESCRIPTOR;
        let mut bytes = vec![0; (table.len as usize).min(most)];
        if !memory.copy_guest(table.address, &mut bytes) {
            self.trouble = Some(format!("its table at {:#x} is not memory", table.address));
            return;
        }
        let (entries, _) = bytes.as_chunks::<DESCRIPTOR>();
        match order {
            TableOrder::InSequence => {
                for entry in entries {
                    self.push(&Descriptor::packed(*entry));
                }
            }
            TableOrder::Linked => {
                let read = |index: u16| entries[usize::from(index)];
                if self.follow(entries.len() as u16, read, 0).is_some() {
                    self.trouble = Some("its table has a table".into());
                }
            }
        }
    }
}
