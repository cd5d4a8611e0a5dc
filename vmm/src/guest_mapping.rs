//! The mapping of RAM that the guest runs on.
//!
//! It is not the one that the VMM itself uses. A page that is write-protected
//! here stops a guest that writes to it, while the VMM writes through its own
//! mapping and backends through theirs: KVM_RUN fails with EFAULT before the
//! instruction has run, or, where KVM emulates the instruction, hands the write
//! out as one to a device.
#![allow(unsafe_code)]

use std::io;

use devices::virtio::GuestMemory;
use host_io::mapping::Mapping;
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::memory;

/// Size of a page of x86-64.
pub const PAGE: u64 = 4096;

/// All of RAM, mapped once more from its file.
pub struct GuestMapping {
    pieces: Vec<Piece>,
}

/// A contiguous range of RAM.
pub struct Piece {
    start: GuestAddress,
    mapping: Mapping,
}

impl Piece {
    pub fn start(&self) -> GuestAddress {
        self.start
    }

    /// In bytes.
    pub fn size(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// Where it is in the VMM, for the hypervisor's memory slot.
    pub fn host_address(&self) -> *mut u8 {
        self.mapping.base().as_ptr()
    }
}

impl GuestMapping {
    /// Maps every region of `ram`, each of which must be part of a file.
    pub fn new(ram: &GuestMemory) -> io::Result<Self> {
        let mut mapping = Self { pieces: Vec::new() };
        for region in ram.iter() {
            let file = region
                .file_offset()
                .ok_or_else(|| io::Error::other("guest RAM is not a file"))?;
            let piece = Piece {
                start: region.start_addr(),
                mapping: Mapping::of_file(file.file(), file.start(), region.len(), true)?,
            };
            // SAFETY: mapped just now, with this length.
            unsafe { memory::advise(piece.host_address(), piece.mapping.len()) };
            mapping.pieces.push(piece);
        }
        Ok(mapping)
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Lets the guest write to the page at `page`, or not.
    pub fn set_writable(&self, page: GuestAddress, writable: bool) -> io::Result<()> {
        let offset = |piece: &Piece| page.raw_value().checked_sub(piece.start.raw_value());
        let inside = |piece: &&Piece| {
            offset(piece).is_some_and(|offset| offset < piece.size() && offset % PAGE == 0)
        };
        let piece = self.pieces.iter().find(inside).ok_or_else(|| {
            io::Error::other(format!("no page of guest RAM at {:#x}", page.raw_value()))
        })?;
        let offset = offset(piece).unwrap_or_default() as usize;
        piece.mapping.set_writable(offset, PAGE as usize, writable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_ram_can_be_protected_and_nothing_else() {
        let memory = crate::memory::allocate(32 << 20).unwrap();
        let mapping = GuestMapping::new(&memory).unwrap();
        for writable in [false, true] {
            mapping
                .set_writable(GuestAddress(0x10_0000), writable)
                .unwrap();
        }
        for no_page in [0x10_0001, 32 << 20, u64::MAX] {
            assert!(mapping.set_writable(GuestAddress(no_page), false).is_err());
        }
    }
}
