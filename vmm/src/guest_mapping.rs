//! The mapping of RAM that the guest runs on.
//!
//! It is not the one that the VMM itself uses. A page that is write-protected
//! here stops a guest that writes to it, while the VMM writes through its own
//! mapping and backends through theirs: KVM_RUN fails with EFAULT before the
//! instruction has run, or, where KVM emulates the instruction, hands the write
//! out as one to a device.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use devices::virtio::GuestMemory;
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
    pub start: GuestAddress,
    pub len: u64,
    pub host: NonNull<u8>,
}

// SAFETY: the mapping is owned and lives until drop; this process reads and writes
// nothing through it.
unsafe impl Send for GuestMapping {}
// SAFETY: as above; changing the protection of a page is one system call.
unsafe impl Sync for GuestMapping {}

impl GuestMapping {
    /// Maps every region of `ram`, each of which must be part of a file.
    pub fn new(ram: &GuestMemory) -> io::Result<Self> {
        let mut mapping = Self { pieces: Vec::new() };
        for region in ram.iter() {
            let file = region
                .file_offset()
                .ok_or_else(|| io::Error::other("guest RAM is not a file"))?;
            let offset = i64::try_from(file.start()).map_err(io::Error::other)?;
            let len = usize::try_from(region.len()).map_err(io::Error::other)?;
            // SAFETY: a new shared mapping at an address of the kernel's choice.
            let host = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_NORESERVE,
                    file.file().as_raw_fd(),
                    offset,
                )
            };
            if host == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: mapped above.
            unsafe { memory::advise(host.cast(), len) };
            mapping.pieces.push(Piece {
                start: region.start_addr(),
                len: region.len(),
                host: NonNull::new(host.cast()).ok_or_else(io::Error::last_os_error)?,
            });
        }
        Ok(mapping)
    }

    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Lets the guest write to the page at `page`, or not.
    pub fn set_writable(&self, page: GuestAddress, writable: bool) -> io::Result<()> {
        let inside = |piece: &&Piece| {
            let offset = page.raw_value().checked_sub(piece.start.raw_value());
            offset.is_some_and(|offset| offset < piece.len && offset % PAGE == 0)
        };
        let piece = self.pieces.iter().find(inside).ok_or_else(|| {
            io::Error::other(format!("no page of guest RAM at {:#x}", page.raw_value()))
        })?;
        let offset = (page.raw_value() - piece.start.raw_value()) as usize;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the page lies inside the piece, whose size is one of whole pages,
        // and this process accesses nothing through the mapping.
        let result = unsafe {
            let host = piece.host.as_ptr().add(offset);
            libc::mprotect(host.cast(), PAGE as usize, libc::PROT_READ | write)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl Drop for GuestMapping {
    fn drop(&mut self) {
        for piece in &self.pieces {
            // SAFETY: mapped in `new` with this length, unmapped nowhere else.
            unsafe { libc::munmap(piece.host.as_ptr().cast(), piece.len as usize) };
        }
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
