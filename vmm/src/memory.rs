//! Guest RAM: one sealed memfd, mapped shared, split around the MMIO hole.
//!
//! Backends map the same file from the descriptor that the frontend sends, so
//! it is sealed against shrinking: a backend that touched a page cut off would
//! be killed by SIGBUS.
#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;

use devices::virtio::GuestMemory;
use host_io::files::sealed_memfd;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend};

use crate::layout;

/// Smallest and largest guest RAM in bytes.
pub const MIN_SIZE: u64 = 32 << 20;
pub const MAX_SIZE: u64 = 1 << 40;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot allocate {size} bytes of guest RAM")]
    Allocate {
        size: u64,
        #[source]
        source: io::Error,
    },
    #[error("cannot map {size} bytes of guest RAM")]
    Map {
        size: u64,
        #[source]
        source: vm_memory::mmap::FromRangesError,
    },
}

/// Allocates `size` bytes of guest RAM. Pages are taken from the host on first use.
pub fn allocate(size: u64) -> Result<Arc<GuestMemory>, Error> {
    let file = sealed_memfd("outboard-ram", size);
    let file = Arc::new(file.map_err(|source| Error::Allocate { size, source })?);
    let ranges: Vec<_> = ranges(size)
        .into_iter()
        .map(|range| {
            let file = FileOffset::from_arc(file.clone(), range.offset);
            (range.start, range.size as usize, Some(file))
        })
        .collect();
    let memory = GuestMemory::from_ranges_with_files(ranges)
        .map_err(|source| Error::Map { size, source })?;
    for region in memory.iter() {
        // SAFETY: the region is this mapping.
        unsafe { advise(region.as_ptr(), region.size()) };
    }
    Ok(Arc::new(memory))
}

/// First guest-physical address behind `size` bytes of RAM.
pub fn end(size: u64) -> u64 {
    let ends = ranges(size)
        .into_iter()
        .map(|range| range.start.0 + range.size);
    ends.max().unwrap_or_default()
}

/// Asks Linux to take huge pages for a mapping of RAM, where it may, and to leave it out
/// when the VMM dumps core.
///
/// # Safety
/// `host` must map `len` bytes of RAM.
pub unsafe fn advise(host: *mut u8, len: usize) {
    for (advice, name) in [
        (libc::MADV_HUGEPAGE, "MADV_HUGEPAGE"),
        (libc::MADV_DONTDUMP, "MADV_DONTDUMP"),
    ] {
        // SAFETY: neither advice changes what the mapping holds.
        if unsafe { libc::madvise(host.cast(), len, advice) } < 0 {
            // A kernel can be built without either.
            tracing::debug!("{name}: {}", io::Error::last_os_error());
        }
    }
}

/// A piece of RAM: where the guest sees it and where it lies in the memfd.
#[derive(Debug, PartialEq, Eq)]
struct Range {
    start: GuestAddress,
    size: u64,
    offset: u64,
}

fn ranges(size: u64) -> Vec<Range> {
    let low = size.min(layout::MMIO_HOLE);
    let mut ranges = vec![Range {
        start: GuestAddress(0),
        size: low,
        offset: 0,
    }];
    if size > low {
        let start = GuestAddress(layout::MMIO_HOLE_END);
        ranges.push(Range {
            start,
            size: size - low,
            offset: low,
        });
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryRegion};

    #[test]
    fn small_ram_is_one_range() {
        let expected = Range {
            start: GuestAddress(0),
            size: 512 << 20,
            offset: 0,
        };
        assert_eq!(ranges(512 << 20), [expected]);
    }

    #[test]
    fn large_ram_goes_around_the_hole_without_loss() {
        let size = 6 << 30;
        let ranges = ranges(size);
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[0].size, layout::MMIO_HOLE);
        assert_eq!(ranges[1].start.0, 1 << 32);
        assert_eq!(ranges[1].offset, layout::MMIO_HOLE);
        assert_eq!(ranges[0].size + ranges[1].size, size);
        assert_eq!(end(size), size + layout::MMIO_HOLE_END - layout::MMIO_HOLE);
        assert_eq!(end(1 << 30), 1 << 30);
    }

    /// Linux's flags of the mapping at `host` (proc_pid_smaps(5), VmFlags).
    fn flags(host: *const u8) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (_, mapping) = smaps
            .split_once(&format!("\n{:x}-", host as usize))
            .unwrap();
        let (_, flags) = mapping.split_once("VmFlags: ").unwrap();
        flags.lines().next().unwrap().to_owned()
    }

    #[test]
    fn ram_is_in_no_core_dump_and_takes_huge_pages() {
        let memory = allocate(MIN_SIZE).unwrap();
        let mapping = crate::guest_mapping::GuestMapping::new(&memory).unwrap();
        let own = memory.iter().next().unwrap().as_ptr();
        for host in [own, mapping.pieces()[0].host_address()] {
            let flags = flags(host);
            let has = |flag| flags.split(' ').any(|found| found == flag);
            assert!(has("dd"), "{flags}");
            let huge = std::path::Path::new("/sys/kernel/mm/transparent_hugepage").exists();
            assert!(has("hg") || !huge, "{flags}");
        }
    }

    #[test]
    fn ram_is_shared_and_cannot_be_cut_or_grown() {
        let memory = allocate(MIN_SIZE).unwrap();
        memory
            .write_obj(0x1234_5678_u32, GuestAddress(0x1000))
            .unwrap();
        let region = memory.iter().next().unwrap();
        let file = region.file_offset().unwrap().file();
        let mut bytes = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0x1000).unwrap();
        assert_eq!(u32::from_le_bytes(bytes), 0x1234_5678);
        assert!(file.set_len(MIN_SIZE - 4096).is_err());
        assert!(file.set_len(MIN_SIZE + 4096).is_err());
    }
}
