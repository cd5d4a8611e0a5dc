//! A piece of a file, mapped for the guest to access.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use host_io::mapping::Mapping;
use vmm_sys_util::eventfd::EventFd;

/// A shared mapping of a part of a file. The VMM itself neither reads nor writes it:
/// the owner of the file can cut it short at any time, and then pages are missing.
pub struct FileMapping {
    mapping: Mapping,
    writable: bool,
    /// Signalled when the file turns out to be cut short.
    cut: Arc<EventFd>,
}

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
        Ok(Self {
            mapping: Mapping::of_file(file, offset, len, writable)?,
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
        self.mapping.replace_by_zeros(self.writable)?;
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
            let last = self.host_address().add(self.len() - 1);
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
        self.mapping.base().as_ptr()
    }

    /// In bytes.
    #[expect(clippy::len_without_is_empty, reason = "mmap(2) maps no empty range")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    pub fn is_writable(&self) -> bool {
        self.writable
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
