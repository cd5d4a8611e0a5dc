//! The log of written pages, which tells a frontend of a device's writes.
//!
//! A frontend that wants to know (QEMU while it migrates, a debugger for its user) shares a
//! bitmap: bit n of byte m stands for the 4096 bytes of guest-physical memory at page 8 m + n. A
//! writer into guest memory sets the bit afterwards, never before: the frontend may have taken
//! the bit, and copied the page, in between.
//!
//! vm-memory sets the bits for all writes that go through it. The device itself reports the
//! kernel's writes on its behalf ([`crate::chain::Buffers::written_by_kernel`]). A used ring may
//! have another place in the log than the memory that it is in ([`RingLog`]).
//!
//! vhost-user document, "Migration" and SET_LOG_BASE.

use std::any::Any;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use arc_swap::ArcSwapOption;
use thiserror::Error;
use vhost::vhost_user::message::VhostUserLog;
use vm_memory::bitmap::{BS, Bitmap, RefSlice, WithBitmapSlice};
use vm_memory::mmap::NewBitmap;
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion,
    VolatileMemory, VolatileSlice,
};

/// Bytes that a bit stands for, whatever the host's pages.
pub const PAGE: u64 = 4096;
/// Pages that a byte stands for.
const PAGES_PER_BYTE: u64 = 8;

/// Guest memory whose writes can be logged, as the kit's own devices use it.
pub type GuestRam = GuestMemoryMmap<PageLog>;

/// A piece of it.
pub type GuestSlice<'m> = VolatileSlice<'m, BS<'m, PageLog>>;

/// A log that cannot be used. The frontend is at fault, unless the text names the host.
#[derive(Debug, Error)]
pub enum LogError {
    /// Not as many bytes as announced, or none.
    #[error("a log of {size} bytes at offset {offset} of a file of {len} bytes")]
    Size {
        /// Announced size in bytes.
        size: u64,
        /// Announced offset in bytes.
        offset: u64,
        /// The file's size in bytes.
        len: u64,
    },
    /// The host cannot inspect the file.
    #[error("the file of the log cannot be inspected")]
    File(#[source] io::Error),
    /// `mmap` failed.
    #[error("the log cannot be mapped")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// Memory, or a ring that is logged elsewhere, that has no bit.
    #[error("a log of {size} bytes ends before the address {end:#x}, which takes {want}")]
    Short {
        /// Size in bytes.
        size: u64,
        /// The last byte.
        end: u64,
        /// The size needed in bytes.
        want: u64,
    },
}

/// The bitmap that a frontend shares.
#[derive(Debug)]
pub struct Log {
    bits: MmapRegion,
}

impl Log {
    /// Maps the log that SET_LOG_BASE describes.
    pub fn map(place: &VhostUserLog, file: File) -> Result<Self, LogError> {
        let (size, offset) = (place.mmap_size, place.mmap_offset);
        let metadata = file.metadata().map_err(LogError::File)?;
        // Beyond the end of the file an access would be a SIGBUS.
        let fits = offset
            .checked_add(size)
            .is_some_and(|end| end <= metadata.len() || !metadata.is_file());
        let bytes = usize::try_from(size).ok();
        let (true, Some(bytes @ 1..)) = (fits, bytes) else {
            let len = metadata.len();
            return Err(LogError::Size { size, offset, len });
        };
        let bits = MmapRegion::from_file(FileOffset::new(file, offset), bytes);
        Ok(Log {
            bits: bits.map_err(LogError::Map)?,
        })
    }

    /// Whether there is a bit for each page of memory up to and with the byte at `end`.
    pub(crate) fn check(&self, end: u64) -> Result<(), LogError> {
        let (size, want) = (self.bits.len() as u64, end / PAGE / PAGES_PER_BYTE + 1);
        if want <= size {
            return Ok(());
        }
        Err(LogError::Short { size, end, want })
    }

    /// Sets the bits of the pages from the byte at `first` to the one at `last`.
    fn set_pages(&self, (first, last): (u64, u64)) {
        for page in first / PAGE..=last / PAGE {
            self.set(page);
        }
    }

    /// Sets the bit of a page.
    fn set(&self, page: u64) {
        let (byte, bit) = (page / PAGES_PER_BYTE, page % PAGES_PER_BYTE);
        // Memory and rings were checked to have bits: an error is a page that none of them has.
        if let Ok(bits) = self.bits.get_atomic_ref::<AtomicU8>(byte as usize) {
            bits.fetch_or(1 << bit, Ordering::Release);
        }
    }
}

/// A used ring whose writes are logged at another address too, which need not be guest memory
/// (VHOST_VRING_F_LOG).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLog {
    /// The ring's first byte in guest memory.
    pub ring: GuestAddress,
    /// Its size in bytes.
    pub len: u64,
    /// The address at which a write to its first byte is logged.
    pub log: u64,
}

impl RingLog {
    /// Where the part of `written` that is the ring's is logged: its first and last byte.
    fn logged(&self, (first, last): (u64, u64)) -> Option<(u64, u64)> {
        let begin = first.max(self.ring.0);
        let end = last.min(self.ring.0.saturating_add(self.len.checked_sub(1)?));
        let place = |at: u64| self.log.saturating_add(at - self.ring.0);
        (begin <= end).then(|| (place(begin), place(end)))
    }
}

/// Where a region's writes are logged, once its frontend wants that.
#[derive(Debug, Clone, Default)]
pub struct PageLog(Arc<Target>);

#[derive(Debug, Default)]
struct Target {
    /// Checked first, for there rarely is a log. The frontend hears that its log is in use after
    /// this is set; accesses are not ordered any further.
    is_on: AtomicBool,
    attached: ArcSwapOption<Attached>,
}

impl PageLog {
    fn attach(&self, attached: Option<Arc<Attached>>) {
        let is_on = attached.is_some();
        self.0.attached.store(attached);
        self.0.is_on.store(is_on, Ordering::SeqCst);
    }
}

/// A log, the guest-physical address at which the region begins that writes into it, and the
/// rings that have a place of their own there.
#[derive(Debug)]
struct Attached {
    log: Arc<Log>,
    start: u64,
    rings: Arc<[RingLog]>,
}

impl Attached {
    fn mark(&self, offset: usize, len: usize) {
        let Some(last) = len.checked_sub(1) else {
            return;
        };
        let first = self.start.saturating_add(offset as u64);
        let written = (first, first.saturating_add(last as u64));
        self.log.set_pages(written);
        for place in self.rings.iter().filter_map(|ring| ring.logged(written)) {
            self.log.set_pages(place);
        }
    }
}

impl Bitmap for PageLog {
    /// Bytes from `offset` on, counted from the region's start, have been written.
    fn mark_dirty(&self, offset: usize, len: usize) {
        if !self.0.is_on.load(Ordering::Relaxed) {
            return;
        }
        if let Some(attached) = self.0.attached.load().as_deref() {
            attached.mark(offset, len);
        }
    }

    /// Not asked by anybody here: the frontend reads the log.
    fn dirty_at(&self, offset: usize) -> bool {
        let attached = self.0.attached.load();
        let Some(Attached { log, start, .. }) = attached.as_deref() else {
            return false;
        };
        let page = start.saturating_add(offset as u64) / PAGE;
        let bits = log
            .bits
            .get_atomic_ref::<AtomicU8>((page / PAGES_PER_BYTE) as usize);
        bits.is_ok_and(|bits| bits.load(Ordering::Acquire) >> (page % PAGES_PER_BYTE) & 1 != 0)
    }

    fn slice_at(&self, offset: usize) -> RefSlice<'_, Self> {
        RefSlice::new(self, offset)
    }
}

impl<'a> WithBitmapSlice<'a> for PageLog {
    type S = RefSlice<'a, Self>;
}

impl NewBitmap for PageLog {
    fn with_len(_len: usize) -> Self {
        PageLog::default()
    }
}

/// Whether a device works in memory whose writes can be logged. One of another crate brings a
/// bitmap of its own, to which no log can be attached from here.
pub fn is_loggable<B: Bitmap + 'static>() -> bool {
    std::any::TypeId::of::<B>() == std::any::TypeId::of::<PageLog>()
}

/// Has all writes into `memory` logged from here on, those to `rings` at their own places too; or,
/// with no log, none.
pub fn attach<B: Bitmap + 'static>(
    memory: &GuestMemoryMmap<B>,
    log: Option<&Arc<Log>>,
    rings: &[RingLog],
) -> Result<(), LogError> {
    if let Some(log) = log {
        for region in memory.iter() {
            log.check(region.last_addr().0)?;
        }
    }
    let rings: Arc<[RingLog]> = rings.into();
    for region in memory.iter() {
        let mapping: &MmapRegion<B> = region;
        let bitmap: &dyn Any = mapping.bitmap();
        if let Some(target) = bitmap.downcast_ref::<PageLog>() {
            let start = region.start_addr().0;
            target.attach(log.map(|log| {
                let (log, rings) = (Arc::clone(log), Arc::clone(&rings));
                Arc::new(Attached { log, start, rings })
            }));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "page_log_test.rs"]
mod tests;
