//! A piece of a file, mapped for the guest to access.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

/// A shared mapping of a part of a file. The VMM itself neither reads nor writes it:
/// the owner of the file can cut it short at any time, and then pages are missing.
pub struct FileMapping {
    base: NonNull<u8>,
    len: usize,
    writable: bool,
    /// Signalled when the file turns out to be cut short.
    cut: Arc<EventFd>,
}

// SAFETY: the mapping is owned and lives until drop; this process reads and writes
// nothing through it.
unsafe impl Send for FileMapping {}
// SAFETY: as above.
unsafe impl Sync for FileMapping {}

impl FileMapping {
    /// Maps `len` bytes from `offset` on, both in whole pages. `cut` is signalled when the
    /// file turns out to be cut short.
    pub fn new(
        file: &File,
        offset: u64,
        len: u64,
        writable: bool,
        cut: Arc<EventFd>,
    ) -> io::Result<Self> {
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
            cut,
        })
    }

    /// Replaces the mapping by private zero pages if its file has been cut short, and
    /// returns whether it has. A guest access to a missing page would fail again and
    /// again.
    pub fn replace_if_cut(&self) -> io::Result<bool> {
        if !self.is_cut()? {
            return Ok(false);
        }
        let write = if self.writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the range is a mapping of this value's, and this process has no
        // reference into it.
        let base = unsafe {
            libc::mmap(
                self.base.as_ptr().cast(),
                self.len,
                libc::PROT_READ | write,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // An error means that the counter is full: the sign is there.
        let _ = self.cut.write(1);
        Ok(true)
    }

    /// Whether the end of the mapping is missing: a file that is cut short always lacks
    /// its end. The kernel is asked to read the last byte, which fails where an access
    /// from here would be fatal.
    fn is_cut(&self) -> io::Result<bool> {
        let (_reader, writer) = io::pipe()?;
        // SAFETY: the last byte is inside the mapping. Where there is no page behind it, the
        // kernel says so.
        let read = unsafe {
            let last = self.base.as_ptr().add(self.len - 1);
            libc::write(writer.as_raw_fd(), last.cast(), 1)
        };
        match io::Error::last_os_error() {
            _ if read == 1 => Ok(false),
            error if error.raw_os_error() == Some(libc::EFAULT) => Ok(true),
            error => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use libc::EFD_NONBLOCK;

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn a_mapping_whose_file_is_cut_short_is_replaced_once_and_no_other_is() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE).unwrap();
        let cut = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let map = |page, pages, writable| {
            FileMapping::new(&file, page * PAGE, pages * PAGE, writable, cut.clone()).unwrap()
        };
        let whole = map(0, 1, true);
        let parts = [map(0, 2, false), map(1, 2, true), map(2, 1, true)];
        for mapping in parts.iter().chain([&whole]) {
            assert!(!mapping.replace_if_cut().unwrap());
        }
        assert!(cut.read().is_err());
        file.set_len(PAGE).unwrap();
        assert!(!whole.replace_if_cut().unwrap());
        for mapping in &parts {
            assert!(mapping.replace_if_cut().unwrap());
            assert!(!mapping.replace_if_cut().unwrap(), "once");
        }
        assert_eq!(cut.read().unwrap(), 3);
    }
}
