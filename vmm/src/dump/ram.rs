//! The guest's memory without what is zero.
//!
//! Memory that the guest has never touched has no pages, and reading it would give it
//! some: the file behind RAM says where they are.

use std::fs::File;
use std::io;
use std::ops::Range;

use devices::virtio::GuestMemory;
use gdb::target::{PhysAddr, TargetError};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use vm_memory::{
    Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion, GuestRegionMmap,
};

/// The size of a page, and so of the smallest hole.
pub const PAGE: usize = 4096;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// Calls `f` with each run of pages in `range`, a part of one region, that are not zero.
pub fn for_each_piece(
    memory: &GuestMemory,
    range: &Range<u64>,
    mut f: impl FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    for extent in Extents::new(memory, range.clone()) {
        let mut at = extent.start;
        while at < extent.end {
            let len = (extent.end - at).min(CHUNK as u64);
            let chunk = &mut buffer[..len as usize];
            read(memory, at, chunk)?;
            for run in runs(chunk) {
                f(at + run.start as u64, &mut chunk[run])?;
            }
            at += len;
        }
    }
    Ok(())
}

fn read(memory: &GuestMemory, at: u64, bytes: &mut [u8]) -> io::Result<()> {
    let read = memory.read_slice(bytes, GuestAddress(at));
    read.map_err(|error: GuestMemoryError| io::Error::other(error))
}

/// Reads RAM for a walk through page tables.
pub fn reader(memory: &GuestMemory) -> impl Fn(PhysAddr, &mut [u8]) -> Result<(), TargetError> {
    |at, bytes| {
        let read = memory.read_slice(bytes, GuestAddress(at.0));
        read.map_err(|_| TargetError::NoRam(at))
    }
}

/// The runs of pages with something in them.
fn runs(chunk: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (page, start) in chunk.chunks(PAGE).zip((0..).step_by(PAGE)) {
        if *page == [0; PAGE][..page.len()] {
            continue;
        }
        match runs.last_mut() {
            Some(last) if last.end == start => last.end += page.len(),
            _ => runs.push(start..start + page.len()),
        }
    }
    runs
}

/// The parts of a range of RAM that have pages, in order.
pub struct Extents<'a> {
    /// The file behind the region, and what has to be added to an address for its place
    /// there.
    file: Option<(&'a File, u64)>,
    rest: Range<u64>,
}

impl<'a> Extents<'a> {
    /// `range` is a part of one region.
    pub fn new(memory: &'a GuestMemory, range: Range<u64>) -> Self {
        let region = memory.find_region(GuestAddress(range.start));
        let file = region.and_then(|region: &GuestRegionMmap<_>| {
            let place = region.file_offset()?;
            let shift = place.start().wrapping_sub(region.start_addr().0);
            Some((place.file(), shift))
        });
        Self { file, rest: range }
    }
}

impl Iterator for Extents<'_> {
    type Item = Range<u64>;

    fn next(&mut self) -> Option<Range<u64>> {
        if self.rest.is_empty() {
            return None;
        }
        let all = self.rest.start..self.rest.end;
        let next = match self.file {
            Some((file, shift)) => next_data(file, all, shift)?,
            None => all,
        };
        self.rest.start = next.end;
        Some(next)
    }
}

/// The next part of `range` that is no hole of the file. Backends have the same open file,
/// of which this changes the position: they map it.
fn next_data(file: &File, range: Range<u64>, shift: u64) -> Option<Range<u64>> {
    let start = match seek(file, SeekFrom::Data(range.start.wrapping_add(shift))) {
        Ok(start) => start.wrapping_sub(shift),
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => return None,
        // It does not tell.
        Err(_) => return Some(range),
    };
    if start >= range.end {
        return None;
    }
    let end = seek(file, SeekFrom::Hole(start.wrapping_add(shift)));
    let end = end.map_or(range.end, |end| end.wrapping_sub(shift));
    Some(start..end.clamp(start + 1, range.end))
}
