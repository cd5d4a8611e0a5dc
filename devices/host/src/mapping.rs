//! Ranges of this process's address space that it shares: with the kernel, with a guest,
//! with other processes.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect, munmap};

/// A shared mapping, which is gone with the value.
///
/// It says where the memory is and never accesses it. Whoever does (by unsafe code of its
/// own) shares it with others, and has to expect that bytes change at any time, that
/// pages are missing where the mapped file is cut short, and that pages cannot be written.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the range is this value's until drop, whichever thread that is on, and nothing
// here accesses its bytes.
unsafe impl Send for Mapping {}
// SAFETY: as above; what changes the range through `&self` is one system call each.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `len` zero bytes of no file.
    pub fn anonymous(len: usize) -> io::Result<Self> {
        let (at, protection) = (std::ptr::null_mut(), protection(true));
        // SAFETY: a new mapping at an address of the kernel's choice touches no
        // existing memory.
        let base = unsafe { mmap_anonymous(at, len, protection, MapFlags::SHARED)? };
        Self::new(base, len)
    }

    /// `len` bytes of `file` from `offset` on, which is a multiple of the page size.
    pub fn of_file(file: impl AsFd, offset: u64, len: u64, writable: bool) -> io::Result<Self> {
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let (at, protection) = (std::ptr::null_mut(), protection(writable));
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: as in `anonymous`.
        let base = unsafe { mmap(at, len, protection, flags, file, offset)? };
        Self::new(base, len)
    }

    fn new(base: *mut std::ffi::c_void, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { base, len })
    }

    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// In bytes.
    #[expect(clippy::len_without_is_empty, reason = "mmap(2) maps no empty range")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts private zero pages in the place of all of it.
    pub fn replace_by_zeros(&self, writable: bool) -> io::Result<()> {
        let (at, protection) = (self.base.as_ptr().cast(), protection(writable));
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is this value's, and stays mapped.
        unsafe { mmap_anonymous(at, self.len, protection, flags)? };
        Ok(())
    }

    /// Lets the pages of `len` bytes at `offset` be written, or not.
    pub fn set_writable(&self, offset: usize, len: usize, writable: bool) -> io::Result<()> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        if !inside {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = match writable {
            true => MprotectFlags::READ | MprotectFlags::WRITE,
            false => MprotectFlags::READ,
        };
        // SAFETY: the pages lie inside the range, which is this value's.
        unsafe { mprotect(self.base.as_ptr().add(offset).cast(), len, flags)? };
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this value's and unmapped nowhere else. An error would mean
        // that it is no range of pages, which it is.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn protection(writable: bool) -> ProtFlags {
    match writable {
        true => ProtFlags::READ | ProtFlags::WRITE,
        false => ProtFlags::READ,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::files::sealed_memfd;

    const PAGE: usize = 4096;

    fn file() -> File {
        let file = sealed_memfd("test", 2 * PAGE as u64).unwrap();
        file.write_all_at(b"second", PAGE as u64).unwrap();
        file
    }

    fn first_byte(mapping: &Mapping) -> u8 {
        // SAFETY: the mapping has a first byte that nobody writes meanwhile.
        unsafe { mapping.base().as_ptr().read_volatile() }
    }

    #[test]
    fn a_part_of_a_file_is_mapped_from_its_offset_on() {
        let mapping = Mapping::of_file(file(), PAGE as u64, PAGE as u64, false).unwrap();
        assert_eq!(mapping.len(), PAGE);
        assert_eq!(first_byte(&mapping), b's');
        mapping.replace_by_zeros(false).unwrap();
        assert_eq!(first_byte(&mapping), 0);
    }

    #[test]
    fn what_is_written_is_in_the_file() {
        let file = file();
        let mapping = Mapping::of_file(&file, 0, PAGE as u64, true).unwrap();
        // SAFETY: the mapping is writable, and nobody else accesses it.
        unsafe { mapping.base().as_ptr().write_volatile(7) };
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [7]);
    }

    #[test]
    fn nothing_outside_of_it_is_protected() {
        let mapping = Mapping::anonymous(2 * PAGE).unwrap();
        mapping.set_writable(PAGE, PAGE, false).unwrap();
        for (offset, len) in [(PAGE, 2 * PAGE), (2 * PAGE, PAGE), (usize::MAX, PAGE)] {
            assert!(mapping.set_writable(offset, len, false).is_err());
        }
        assert!(mapping.set_writable(1, PAGE, false).is_err(), "no page");
    }

    #[test]
    fn what_cannot_be_mapped_is_refused() {
        assert!(Mapping::anonymous(0).is_err());
        assert!(Mapping::of_file(file(), 1, PAGE as u64, false).is_err());
        assert!(Mapping::of_file(io::stdin(), 0, u64::MAX, false).is_err());
    }
}
