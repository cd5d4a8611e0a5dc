//! Scatter-gather I/O straight on guest memory.
//!
//! The kernel reads and writes the guest's buffers itself; nothing is copied through the
//! backend. The guest may change its memory at any time, so these bytes are never seen as a Rust
//! slice: only their addresses are handed to system calls.

#![allow(unsafe_code)]

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Most buffers one system call takes (`UIO_MAXIOV`).
pub const MAX_PER_CALL: usize = 1024;

/// Room for a copy, in bytes.
const BOUNCE: usize = 1 << 16;

/// Room for buffer descriptions, kept from one request to the next.
///
/// The buffers may be unmapped once the guest memory that they are in is dropped. A caller that
/// hands them to the kernel outside an [`IoVecs`] borrow keeps that memory.
#[derive(Debug, Default)]
pub struct IoVecBuf {
    vec: Vec<libc::iovec>,
    /// Buffers before this one have been transferred.
    first: usize,
}

// SAFETY: the addresses are only numbers here; whoever uses them says why they are good.
unsafe impl Send for IoVecBuf {}

impl IoVecBuf {
    /// An empty list of buffers that live as long as `'m`.
    pub fn start<'m>(&mut self) -> IoVecs<'_, 'm> {
        self.vec.clear();
        self.first = 0;
        IoVecs {
            buf: self,
            memory: PhantomData,
        }
    }

    /// Describes `bytes` and nothing else.
    pub fn describe(&mut self, bytes: &mut [u8]) {
        self.vec.clear();
        self.first = 0;
        self.vec.push(libc::iovec {
            iov_base: bytes.as_mut_ptr().cast(),
            iov_len: bytes.len(),
        });
    }

    /// The buffers that have not been transferred.
    pub fn rest(&self) -> &[libc::iovec] {
        &self.vec[self.first.min(self.vec.len())..]
    }

    /// `n` bytes more have been transferred.
    pub fn advance(&mut self, mut n: usize) {
        while let Some(iov) = self.vec.get_mut(self.first) {
            if n < iov.iov_len {
                iov.iov_base = iov.iov_base.wrapping_byte_add(n);
                iov.iov_len -= n;
                return;
            }
            n -= iov.iov_len;
            self.first += 1;
        }
    }
}

/// A list of buffers in guest memory, in the order in which they are filled or emptied.
pub struct IoVecs<'b, 'm> {
    buf: &'b mut IoVecBuf,
    memory: PhantomData<VolatileSlice<'m, ()>>,
}

impl<'m> IoVecs<'_, 'm> {
    /// Adds a buffer. The kernel's writes into it are not logged automatically
    /// ([`crate::chain::Buffers::written_by_kernel`]).
    pub fn push<B: BitmapSlice>(&mut self, slice: &VolatileSlice<'m, B>) {
        self.buf.vec.push(libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        });
    }

    /// Fills all buffers from `fd` at `offset`. A file that ends before is `UnexpectedEof`.
    pub fn read_exact_at(self, fd: BorrowedFd<'_>, offset: u64) -> io::Result<()> {
        self.transfer(offset, io::ErrorKind::UnexpectedEof, |iov, count, at| {
            // SAFETY: the `count` iovecs at `iov` describe guest memory that is mapped for `'m`,
            // which outlives `self`; the guest expects it to be overwritten.
            unsafe { libc::preadv64(fd.as_raw_fd(), iov, count, at) }
        })
    }

    /// Writes all buffers to `fd` at `offset`. With `durable` each write reaches stable storage
    /// before this returns.
    pub fn write_all_at(self, fd: BorrowedFd<'_>, offset: u64, durable: bool) -> io::Result<()> {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        self.transfer(offset, io::ErrorKind::WriteZero, |iov, count, at| {
            // SAFETY: the `count` iovecs at `iov` describe guest memory that is mapped for `'m`,
            // which outlives `self`; the kernel only reads it.
            unsafe { libc::pwritev2(fd.as_raw_fd(), iov, count, at, flags) }
        })
    }

    /// Fills all buffers through a copy: `read` gets a piece and where it stands.
    pub fn fill_with(
        self,
        mut offset: u64,
        mut read: impl FnMut(&mut [u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut copy = vec![0; BOUNCE];
        for (at, len) in self.pieces() {
            read(&mut copy[..len], offset)?;
            // SAFETY: the `len` bytes at `at` are guest memory that is mapped for `'m`, which
            // outlives `self`; the guest expects them to be overwritten.
            unsafe { at.copy_from_nonoverlapping(copy.as_ptr(), len) };
            offset += len as u64;
        }
        Ok(())
    }

    /// Empties all buffers through a copy: `write` gets a piece and where it goes.
    pub fn drain_with(
        self,
        mut offset: u64,
        mut write: impl FnMut(&[u8], u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut copy = vec![0; BOUNCE];
        for (at, len) in self.pieces() {
            // SAFETY: as in `fill_with`; the bytes are only read, and are plain data whatever the
            // guest does to them meanwhile.
            unsafe { at.copy_to_nonoverlapping(copy.as_mut_ptr(), len) };
            write(&copy[..len], offset)?;
            offset += len as u64;
        }
        Ok(())
    }

    /// The buffers in pieces that fit the room for a copy.
    fn pieces(&self) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        self.buf.vec.iter().flat_map(|iov| {
            (0..iov.iov_len).step_by(BOUNCE).map(move |start| {
                let at = iov.iov_base.cast::<u8>().wrapping_add(start);
                (at, (iov.iov_len - start).min(BOUNCE))
            })
        })
    }

    /// Sends all buffers to `fd` as one packet.
    pub fn send(self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let (iov, count) = self.next_call();
        // SAFETY: as in `write_all_at`.
        check(unsafe { libc::writev(fd.as_raw_fd(), iov, count) })
    }

    /// Repeats `call` until every buffer has been transferred.
    fn transfer(
        self,
        mut offset: u64,
        at_end: io::ErrorKind,
        call: impl Fn(*const libc::iovec, libc::c_int, libc::off64_t) -> isize,
    ) -> io::Result<()> {
        self.buf.advance(0);
        while !self.buf.rest().is_empty() {
            let (iov, count) = self.next_call();
            let at = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
            match check(call(iov, count, at)) {
                Ok(0) => return Err(at_end.into()),
                Ok(n) => {
                    offset += n as u64;
                    self.buf.advance(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The buffers of the next system call.
    fn next_call(&self) -> (*const libc::iovec, libc::c_int) {
        let rest = self.buf.rest();
        let count = rest.len().min(MAX_PER_CALL);
        (rest.as_ptr(), count as libc::c_int)
    }
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap()
    }

    fn push<'m>(iov: &mut IoVecs<'_, 'm>, memory: &'m GuestMemoryMmap, at: u64, len: usize) {
        let slices = memory
            .get_slices(GuestAddress(at), len, Permissions::ReadWrite)
            .unwrap();
        for slice in slices {
            iov.push(&slice.unwrap());
        }
    }

    #[test]
    fn buffers_are_filled_in_order_across_many_calls() {
        let memory = memory();
        let file = tempfile::tempfile().unwrap();
        let data: Vec<u8> = (0..6000u32).map(|i| i as u8 ^ (i >> 8) as u8).collect();
        file.write_all_at(&data, 100).unwrap();
        let mut room = IoVecBuf::default();
        let mut iov = room.start();
        // 3000 buffers of two bytes: three system calls' worth.
        for i in 0..3000 {
            push(&mut iov, &memory, 0x8000 - 2 * (i + 1), 2);
        }
        iov.read_exact_at(file.as_fd(), 100).unwrap();
        let mut got = vec![0; 6000];
        memory
            .read_slice(&mut got, GuestAddress(0x8000 - 6000))
            .unwrap();
        let expected: Vec<u8> = data.chunks(2).rev().flatten().copied().collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_short_file_is_an_error_and_nothing_is_written_twice() {
        let memory = memory();
        let file = tempfile::tempfile().unwrap();
        file.set_len(700).unwrap();
        let mut room = IoVecBuf::default();
        let mut iov = room.start();
        push(&mut iov, &memory, 0, 512);
        push(&mut iov, &memory, 512, 512);
        let error = iov.read_exact_at(file.as_fd(), 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn writes_land_at_the_offset() {
        let memory = memory();
        memory
            .write_slice(b"hello, world", GuestAddress(0x100))
            .unwrap();
        let file = tempfile::tempfile().unwrap();
        for durable in [false, true] {
            let mut room = IoVecBuf::default();
            let mut iov = room.start();
            push(&mut iov, &memory, 0x107, 5);
            push(&mut iov, &memory, 0x100, 5);
            iov.write_all_at(file.as_fd(), 3, durable).unwrap();
            let mut got = [0; 10];
            file.read_exact_at(&mut got, 3).unwrap();
            assert_eq!(&got, b"worldhello");
        }
    }
}
