//! A piece of a file, mapped for the guest to access.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// A shared mapping of a part of a file. The VMM itself neither reads nor writes it:
/// whoever owns the file can take its pages away.
#[derive(Debug)]
pub struct FileMapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping is owned and lives until drop; this process reads and writes
// nothing through it.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps `len` bytes from `offset` on, both in whole pages.
    pub fn new(file: &File, offset: u64, len: u64, writable: bool) -> io::Result<Self> {
        let offset = i64::try_from(offset).map_err(io::Error::other)?;
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let write = if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // existing memory.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | write,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                offset,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Self {
            base,
            len,
            writable,
        })
    }

    /// Where it is in the VMM, for the hypervisor's memory slot.
    pub fn host_address(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// In bytes.
    #[expect(clippy::len_without_is_empty, reason = "mmap(2) maps no empty range")]
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_writable(&self) -> bool {
        self.writable
    }
}

impl Drop for FileMapping {
    fn drop(&mut self) {
        // SAFETY: `base` is a mapping of `len` bytes made in `new` and unmapped
        // nowhere else.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
