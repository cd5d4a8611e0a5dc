//! The published register page.
//!
//! Reads of a virtio-mmio device never leave the kernel: its 4 KiB register
//! window is one page of VMM memory, mapped read-only into the guest.
#![allow(unsafe_code)]

use std::io;
use std::ptr::NonNull;

/// Size of a device's register window in bytes.
pub const PAGE_SIZE: usize = 4096;

/// One page of shared memory that holds what the guest reads.
#[derive(Debug)]
pub struct RegisterPage {
    base: NonNull<u8>,
}

// SAFETY: the mapping is owned by this value alone, lives until drop, and every
// access through `&self` is a single volatile load or store of plain integers.
unsafe impl Send for RegisterPage {}
// SAFETY: as above; the guest may read concurrently, which volatile stores allow.
unsafe impl Sync for RegisterPage {}

impl RegisterPage {
    /// A zeroed page.
    pub fn new() -> io::Result<Self> {
        // SAFETY: an anonymous mapping at an address of the kernel's choice
        // touches no existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self { base })
    }

    /// Where the page is in the VMM, for the hypervisor's memory slot.
    pub fn host_address(&self) -> *mut u8 {
        self.base.as_ptr()
    }
}

impl Drop for RegisterPage {
    fn drop(&mut self) {
        // SAFETY: `base` is a mapping of PAGE_SIZE bytes made in `new` and
        // unmapped nowhere else.
        unsafe { libc::munmap(self.base.as_ptr().cast(), PAGE_SIZE) };
    }
}
