//! What is in a ring: descriptors, and chains of them.

use vm_memory::{GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use crate::backend::trouble::Trouble;

/// What is wrong with a ring: no more can be told of it then.
pub type RingError = (Trouble, String);

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

/// Bytes of a descriptor.
pub const DESCRIPTOR: u64 = 16;

/// What a chain has, in its order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// The first descriptor of a split ring, the buffer id of a packed one.
    pub id: u16,
    /// Descriptors that it takes in the ring.
    pub count: u16,
    pub readable: Vec<(GuestAddress, u32)>,
    pub writable: Vec<(GuestAddress, u32)>,
}

impl Chain {
    pub fn push(
        &mut self,
        memory: &GuestMemoryMmap,
        (addr, len): (GuestAddress, u32),
        is_writable: bool,
    ) -> Result<(), RingError> {
        if !memory.check_range(addr, len as usize, Permissions::Read) {
            let (id, addr) = (self.id, addr.0);
            let text = format!("{len} bytes at guest address {addr:#x} (id {id})");
            return Err((Trouble::Buffer, text));
        }
        if is_writable {
            self.writable.push((addr, len));
            return Ok(());
        }
        if !self.writable.is_empty() {
            let text = format!("the chain of id {}", self.id);
            return Err((Trouble::Order, text));
        }
        self.readable.push((addr, len));
        Ok(())
    }
}

/// Whether a descriptor refers to a table; that it may is the driver's to see to.
///
/// # Errors
/// Such tables are not negotiated, the table is part of another, or the chain has more behind it
/// (sections 2.7.5.3.1 and 2.8.19).
pub fn is_table(flags: u16, is_allowed: bool, is_inside: bool) -> Result<bool, RingError> {
    if flags & INDIRECT == 0 {
        return Ok(false);
    }
    let what = if !is_allowed {
        "INDIRECT_DESC is not negotiated, and a descriptor has the flag INDIRECT"
    } else if is_inside {
        "a descriptor of an indirect table has the flag INDIRECT"
    } else if flags & NEXT != 0 {
        "a descriptor has the flags INDIRECT and NEXT"
    } else {
        return Ok(true);
    };
    Err((Trouble::Indirect, what.into()))
}
