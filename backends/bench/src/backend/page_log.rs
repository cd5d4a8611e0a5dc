//! The log of written pages ("Migration").

use std::sync::atomic::{AtomicU8, Ordering};

use vhost::vhost_user::message::VhostUserLog;
use vhost_user_wire::Message;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// VHOST_LOG_PAGE
pub const PAGE: u64 = 0x1000;

#[derive(Debug)]
pub struct PageLog(MmapRegion);

impl PageLog {
    /// That of SET_LOG_BASE.
    ///
    /// # Errors
    /// The message is not whole, or its file cannot be mapped.
    pub fn new(message: &mut Message) -> Result<Self, String> {
        let log: VhostUserLog = message.body().map_err(|error| error.to_string())?;
        let file = message.take_file().map_err(|error| error.to_string())?;
        let (size, offset) = (log.mmap_size as usize, log.mmap_offset);
        let region = MmapRegion::from_file(FileOffset::new(file, offset), size);
        let region = region.map_err(|error| format!("the log cannot be mapped: {error}"))?;
        Ok(Self(region))
    }

    /// Marks the pages of `len` bytes at a guest address. What the log has no room for is left
    /// out: a check says so.
    pub fn mark(&self, guest: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = guest.saturating_add(len - 1) / PAGE;
        for page in guest / PAGE..=last {
            let byte = (page / 8) as usize;
            if let Ok(byte) = self.0.get_atomic_ref::<AtomicU8>(byte) {
                byte.fetch_or(1 << (page % 8), Ordering::SeqCst);
            }
        }
    }
}
