//! Access past the page cache (O_DIRECT), and its demands on buffers.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::{AtFlags, StatxFlags};

/// STATX_DIOALIGN (Linux 6.1): the alignment is asked for, or told.
const DIOALIGN: StatxFlags = StatxFlags::from_bits_retain(0x2000);

/// Alignments that are tried where the kernel does not tell.
const TRIED: [usize; 3] = [512, 4096, 65536];

/// The alignment that the kernel demands of a transfer, in bytes: powers of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Alignment of each buffer's address.
    memory: usize,
    /// Alignment of each buffer's length, and of its offset in the file.
    offset: usize,
}

impl Alignment {
    /// Makes all access to `file` go past the page cache from here on.
    pub fn enable(file: &File) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(file)?;
        rustix::fs::fcntl_setfl(file, flags | rustix::fs::OFlags::DIRECT)?;
        let stat = rustix::fs::statx(file, c"", AtFlags::EMPTY_PATH, DIOALIGN);
        if let Ok(stat) = stat
            && stat.stx_mask & DIOALIGN.bits() != 0
            && stat.stx_dio_offset_align != 0
        {
            return Ok(Alignment {
                memory: stat.stx_dio_mem_align.max(1) as usize,
                offset: stat.stx_dio_offset_align as usize,
            });
        }
        let works = |size: &usize| {
            let mut bounce = Bounce::new(*size, *size);
            let bytes = bounce.bytes_mut();
            // SAFETY: `bytes` is writable for its length; the descriptor is open.
            let read =
                unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
            read >= 0
        };
        let found = TRIED.into_iter().find(works);
        let size = found.ok_or(io::ErrorKind::Unsupported)?;
        Ok(Alignment {
            memory: size,
            offset: size,
        })
    }

    /// The smallest piece of the file that can be transferred, in bytes.
    pub fn block(&self) -> usize {
        self.offset
    }

    /// Whether the kernel takes these buffers as they are.
    pub fn fits(&self, iovecs: &[libc::iovec]) -> bool {
        iovecs.iter().all(|iovec| {
            iovec.iov_base.addr().is_multiple_of(self.memory)
                && iovec.iov_len.is_multiple_of(self.offset)
        })
    }

    /// Room for `len` bytes that it takes.
    pub fn bounce(&self, len: usize) -> Bounce {
        Bounce::new(len, self.memory)
    }
}

/// A copy of data whose own address or length is not aligned.
#[derive(Debug)]
pub struct Bounce {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Bounce {
    fn new(len: usize, alignment: usize) -> Self {
        let bytes = vec![0; len + alignment];
        let start = bytes.as_ptr().addr().wrapping_neg() % alignment;
        Bounce { bytes, start, len }
    }

    /// The data.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    /// The same, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn a_bounce_buffer_fits_and_others_may_not() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        file.as_file().write_all_at(&[7; 8192], 0).unwrap();
        let alignment = Alignment::enable(file.as_file()).unwrap();
        let mut bounce = alignment.bounce(4096);
        let bytes = bounce.bytes_mut();
        let iovec = |at: usize, len| libc::iovec {
            iov_base: bytes.as_ptr().wrapping_add(at).cast_mut().cast(),
            iov_len: len,
        };
        assert!(alignment.fits(&[iovec(0, 4096)]) && alignment.fits(&[]));
        assert!(!alignment.fits(&[iovec(0, 4096), iovec(0, 511)]));
        let odd = Alignment {
            memory: 512,
            ..alignment
        };
        assert!(!odd.fits(&[iovec(1, 512)]));
        file.as_file().read_exact_at(bytes, 4096).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 7));
    }
}
