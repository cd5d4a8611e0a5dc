//! The areas of a ring in guest memory.
//!
//! They are looked up when a worker first comes to the ring, and again only after the frontend has
//! moved the ring or shared other memory: an access to a field searches for no region.

#![allow(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use vm_memory::bitmap::RefSlice;
use vm_memory::{
    ByteValued, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion, MmapRegion,
    VolatileMemory, VolatileSlice,
};

use crate::area::{Area, Areas};
use crate::look_again::Fence;
use crate::page_log::{GuestRam, GuestSlice, PageLog};

/// An area of a ring.
#[derive(Debug)]
pub struct RamArea {
    span: Span,
    host: *mut u8,
    /// Where writes are logged: the log of the region, and the area's offset there.
    log: PageLog,
    offset: usize,
    /// Keeps the bytes at `host` mapped.
    memory: Arc<GuestRam>,
}

// SAFETY: the memory behind `host` belongs to no thread: the guest and other threads access it
// anyway, and all accesses here are the volatile and atomic ones of a `VolatileSlice`.
unsafe impl Send for RamArea {}
// SAFETY: the same.
unsafe impl Sync for RamArea {}

impl RamArea {
    /// The area at `span`, which has to be in one piece of memory.
    fn find(memory: &Arc<GuestRam>, span: Span) -> io::Result<Self> {
        let Span { start, len } = span;
        let scattered = || {
            io::Error::other(format!(
                "the {len} bytes at {:#x} are not in one piece of guest memory",
                start.0
            ))
        };
        let (region, offset) = memory.to_region_addr(start).ok_or_else(scattered)?;
        let slice = region.get_slice(offset, len).map_err(|_| scattered())?;
        let mapping: &MmapRegion<PageLog> = region;
        Ok(RamArea {
            span,
            host: slice.ptr_guard_mut().as_ptr(),
            log: mapping.bitmap().clone(),
            offset: offset.0 as usize,
            memory: Arc::clone(memory),
        })
    }

    /// Its bytes.
    #[inline]
    pub fn slice(&self) -> GuestSlice<'_> {
        let log = RefSlice::new(&self.log, self.offset);
        // SAFETY: `find` has got `host` from a slice of that length of `memory`, which keeps it
        // mapped for as long as `self`, and so the returned slice, lives. Everybody accesses
        // guest memory by volatile slices.
        unsafe { VolatileSlice::with_bitmap(self.host, self.span.len, log, None) }
    }
}

impl Fence for RamArea {
    fn full() {
        fence(Ordering::SeqCst);
    }
}

impl Area for RamArea {
    #[inline]
    fn load(&self, at: usize, order: Ordering) -> io::Result<u16> {
        let slice = self.slice();
        let value = slice.get_atomic_ref::<AtomicU16>(at);
        let value = value.map_err(io::Error::other)?;
        Ok(u16::from_le(value.load(order)))
    }

    #[inline]
    fn store(&self, at: usize, value: u16, order: Ordering) -> io::Result<()> {
        let stored = self.slice().store(value.to_le(), at, order);
        stored.map_err(io::Error::other)
    }

    #[inline]
    fn read<T: ByteValued>(&self, at: usize) -> io::Result<T> {
        let slice = self.slice();
        let value = slice.get_ref(at).map_err(io::Error::other)?;
        Ok(value.load())
    }

    #[inline]
    fn write<T: ByteValued>(&self, at: usize, value: T) -> io::Result<()> {
        let slice = self.slice();
        slice.get_ref(at).map_err(io::Error::other)?.store(value);
        Ok(())
    }
}

/// Where an area is in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: GuestAddress,
    /// In bytes.
    pub len: usize,
}

impl Areas<RamArea> {
    /// Those that `memory` has at `spans`.
    pub fn find(memory: &Arc<GuestRam>, spans: Areas<Span>) -> io::Result<Self> {
        Ok(Areas {
            descriptors: RamArea::find(memory, spans.descriptors)?,
            driver: RamArea::find(memory, spans.driver)?,
            device: RamArea::find(memory, spans.device)?,
        })
    }

    /// Whether they are those that `memory` has at `spans`.
    fn are(&self, memory: &Arc<GuestRam>, spans: &Areas<Span>) -> bool {
        let is =
            |area: &RamArea, span: &Span| Arc::ptr_eq(&area.memory, memory) && area.span == *span;
        is(&self.descriptors, &spans.descriptors)
            && is(&self.driver, &spans.driver)
            && is(&self.device, &spans.device)
    }
}

/// The areas of one ring as they were looked up last.
#[derive(Debug, Default)]
pub struct FoundAreas(Option<Arc<Areas<RamArea>>>);

impl FoundAreas {
    /// The areas that `memory` has at `spans`.
    pub fn find(
        &mut self,
        memory: &Arc<GuestRam>,
        spans: Areas<Span>,
    ) -> io::Result<Arc<Areas<RamArea>>> {
        if let Some(found) = self.0.as_ref().filter(|found| found.are(memory, &spans)) {
            return Ok(Arc::clone(found));
        }
        let found = Arc::new(Areas::find(memory, spans)?);
        self.0 = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Lets go of the memory that they are in.
    pub fn forget(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
#[path = "ram_area_test.rs"]
mod tests;
