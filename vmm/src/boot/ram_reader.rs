//! Files that are read into guest RAM by the host's kernel alone.
//!
//! RAM is a file as well, so that sendfile(2) copies from page to page. A read would first
//! fault every page into the VMM's own mapping, where nobody needs it, and have it zeroed
//! before it is overwritten: for a kernel image that is most of the VMM's start.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use devices::virtio::GuestMemory;
use rustix::fs::{seek, sendfile};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{
    GuestMemoryBackend, GuestMemoryRegion, ReadVolatile, VolatileMemoryError, VolatileSlice,
};

/// Below this a read costs no more.
const WORTHWHILE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// A file whose data goes to `memory`.
pub struct RamReader<'a> {
    file: &'a mut File,
    memory: &'a GuestMemory,
}

impl<'a> RamReader<'a> {
    pub fn new(file: &'a mut File, memory: &'a GuestMemory) -> Self {
        Self { file, memory }
    }

    /// The file that RAM at `host` is part of, and where in it.
    fn place(&self, host: *const u8, len: usize) -> Option<(&File, u64)> {
        self.memory.iter().find_map(|region| {
            let within = host.addr().checked_sub(region.as_ptr().addr())? as u64;
            let file = region.file_offset()?;
            (within + len as u64 <= region.len()).then(|| (file.file(), file.start() + within))
        })
    }

    fn send<B: BitmapSlice>(&self, buf: &VolatileSlice<B>) -> Option<io::Result<usize>> {
        let (ram, offset) = self.place(buf.ptr_guard().as_ptr(), buf.len())?;
        touch_huge_pages(buf);
        // Nobody else uses the position that RAM has as a file.
        let sent = seek(ram, rustix::fs::SeekFrom::Start(offset))
            .and_then(|_| sendfile(ram, &*self.file, None, buf.len()));
        match sent {
            // Not every kind of file can be sent.
            Err(rustix::io::Errno::INVAL) => None,
            sent => Some(sent.map_err(io::Error::from)),
        }
    }
}

/// Linux gives a huge page for an access through a mapping that was advised so
/// (`memory::advise`), not for a write to the file. One access a page: without huge pages
/// that is next to nothing.
fn touch_huge_pages<B: BitmapSlice>(buf: &VolatileSlice<B>) {
    let begin = buf.ptr_guard().as_ptr().addr();
    let first = begin.next_multiple_of(HUGE_PAGE) - begin;
    let boundaries = (first..buf.len()).step_by(HUGE_PAGE);
    for at in std::iter::once(0).chain(boundaries) {
        if let Ok(byte) = buf.subslice(at, 1) {
            byte.copy_to(&mut [0u8]);
        }
    }
}

impl ReadVolatile for RamReader<'_> {
    fn read_volatile<B: BitmapSlice>(
        &mut self,
        buf: &mut VolatileSlice<B>,
    ) -> Result<usize, VolatileMemoryError> {
        let sent = (buf.len() >= WORTHWHILE).then(|| self.send(buf)).flatten();
        match sent {
            Some(Ok(len)) => {
                buf.bitmap().mark_dirty(0, len);
                Ok(len)
            }
            Some(Err(error)) => Err(VolatileMemoryError::IOError(error)),
            None => self.file.read_volatile(buf),
        }
    }
}

impl Read for RamReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.file.read(buf)
    }
}

impl Seek for RamReader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;
    use crate::memory;

    const LEN: usize = 3 * 4096 + 5;

    fn content() -> Vec<u8> {
        (0..LEN).map(|n| (n % 251) as u8).collect()
    }

    fn check(memory: &GuestMemory, addr: u64) {
        let mut around = vec![0; LEN + 2];
        memory
            .read_slice(&mut around, GuestAddress(addr - 1))
            .unwrap();
        assert_eq!(around[1..=LEN], content());
        assert_eq!(
            (around[0], around[LEN + 1]),
            (7, 7),
            "nothing else is written"
        );
    }

    #[test]
    fn a_file_goes_to_where_it_is_wanted() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        for addr in [0x1000, 0x2345, 0x10_0fff] {
            let all = vec![7; LEN + 2];
            memory.write_slice(&all, GuestAddress(addr - 1)).unwrap();
            file.rewind().unwrap();
            let mut reader = RamReader::new(&mut file, &memory);
            memory
                .read_exact_volatile_from(GuestAddress(addr), &mut reader, LEN)
                .unwrap();
            check(&memory, addr);
            assert_eq!(file.stream_position().unwrap(), LEN as u64);
        }
    }

    #[test]
    fn a_pipe_and_ram_without_a_file_are_read() {
        let anonymous = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let in_file = memory::allocate(memory::MIN_SIZE).unwrap();
        for memory in [&anonymous, &*in_file] {
            let (out, mut into) = io::pipe().unwrap();
            into.write_all(&content()).unwrap();
            let all = vec![7; LEN + 2];
            memory.write_slice(&all, GuestAddress(0xfff)).unwrap();
            let mut file = File::from(std::os::fd::OwnedFd::from(out));
            let mut reader = RamReader::new(&mut file, memory);
            memory
                .read_exact_volatile_from(GuestAddress(0x1000), &mut reader, LEN)
                .unwrap();
            check(memory, 0x1000);
        }
    }

    #[test]
    fn a_file_that_is_too_short_is_an_error() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content()).unwrap();
        file.rewind().unwrap();
        let mut reader = RamReader::new(&mut file, &memory);
        let read = memory.read_exact_volatile_from(GuestAddress(0), &mut reader, LEN + 1);
        assert!(read.is_err());
    }
}
