//! Zeroing guest RAM without taking host memory for it.

use std::io;
use std::ops::Range;

use devices::virtio::GuestMemory;
use rustix::fs::{FallocateFlags, fallocate};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

const PAGE: u64 = 4096;

/// Zeroes guest RAM, which the range must be in. Whole pages are given back to the host: at the
/// first boot they are empty already, and stay so.
pub fn clear(memory: &GuestMemory, range: Range<u64>) -> io::Result<()> {
    let pages = range.start.next_multiple_of(PAGE)..range.end / PAGE * PAGE;
    if pages.is_empty() {
        return write_zeros(memory, range);
    }
    write_zeros(memory, range.start..pages.start)?;
    give_back(memory, pages.clone())?;
    write_zeros(memory, pages.end..range.end)
}

/// Less than two pages.
fn write_zeros(memory: &GuestMemory, range: Range<u64>) -> io::Result<()> {
    const ZEROS: [u8; 2 * PAGE as usize] = [0; 2 * PAGE as usize];
    let zeros = &ZEROS[..(range.end - range.start) as usize];
    let written = memory.write_slice(zeros, GuestAddress(range.start));
    written.map_err(io::Error::other)
}

fn give_back(memory: &GuestMemory, pages: Range<u64>) -> io::Result<()> {
    let outside = || io::Error::other("outside guest RAM");
    let region = memory.find_region(GuestAddress(pages.start));
    let region = region.ok_or_else(outside)?;
    if region.last_addr().0 < pages.end - 1 {
        return Err(outside());
    }
    let file = region.file_offset().ok_or_else(outside)?;
    let start = file.start() + (pages.start - region.start_addr().0);
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(
        file.file(),
        flags,
        start,
        pages.end - pages.start,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory;

    #[test]
    fn what_is_in_the_range_is_zero_and_nothing_else() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        for (start, end) in [
            (0x1001, 0x1003),
            (0x1ff0, 0x2010),
            (0x1001, 0x5003),
            (0x1000, 0x3000),
        ] {
            let all = 0..0x6000;
            memory.write_slice(&[7; 0x6000], GuestAddress(0)).unwrap();
            clear(&memory, start..end).unwrap();
            let mut bytes = vec![0; 0x6000];
            memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
            let expected = all.map(|at| if (start..end).contains(&at) { 0 } else { 7 });
            assert!(bytes.iter().copied().eq(expected), "{start:#x}..{end:#x}");
        }
    }

    #[test]
    fn what_is_not_ram_is_an_error() {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        let end = memory.last_addr().0 + 1;
        assert!(clear(&memory, end - 0x1000..end + 0x1000).is_err());
        assert!(clear(&memory, end..end + 1).is_err());
    }
}
