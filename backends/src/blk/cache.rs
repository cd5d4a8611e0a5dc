//! The disk's write cache as its driver sees and sets it (virtio 1.4, sections 5.2.5 and 5.2.6.2).

use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};

/// Offset of `writeback` in the configuration space.
pub const WRITEBACK: u32 = 32;

const WRITETHROUGH_MODE: u8 = 0;
const WRITEBACK_MODE: u8 = 1;

/// A mode that the driver, or a predecessor's record, asks for and there is not.
#[derive(Debug, Error)]
#[error(
    "the cache mode is set by one byte at offset {WRITEBACK} of the configuration space, \
     0 (writethrough) or 1 (writeback); the driver wrote {bytes:?} at offset {offset}"
)]
pub struct UnknownMode {
    offset: u32,
    bytes: Vec<u8>,
}

/// The mode of the cache. It is writeback until the driver says otherwise.
#[derive(Debug)]
pub struct WriteCache {
    is_writeback: AtomicBool,
}

impl Default for WriteCache {
    fn default() -> Self {
        Self {
            is_writeback: AtomicBool::new(true),
        }
    }
}

impl WriteCache {
    /// The driver has accepted these features. One that can set the mode and cannot flush begins
    /// with writethrough. Any other keeps the mode: features are set again while a driver is at
    /// work, too.
    pub fn negotiated(&self, features: u64) {
        if has(features, VIRTIO_BLK_F_CONFIG_WCE) && !has(features, VIRTIO_BLK_F_FLUSH) {
            self.is_writeback.store(false, Ordering::Relaxed);
        }
    }

    /// The mode of a new driver.
    pub fn reset(&self) {
        self.is_writeback.store(true, Ordering::Relaxed);
    }

    /// The byte in the configuration space.
    pub fn mode(&self) -> u8 {
        match self.is_writeback.load(Ordering::Relaxed) {
            true => WRITEBACK_MODE,
            false => WRITETHROUGH_MODE,
        }
    }

    /// Takes what the driver writes into the configuration space.
    pub fn write(&self, offset: u32, bytes: &[u8]) -> Result<(), UnknownMode> {
        let is_writeback = match (offset, bytes) {
            (WRITEBACK, [WRITETHROUGH_MODE]) => false,
            (WRITEBACK, [WRITEBACK_MODE]) => true,
            _ => {
                let bytes = bytes.to_vec();
                return Err(UnknownMode { offset, bytes });
            }
        };
        self.is_writeback.store(is_writeback, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a write has to be on stable storage when it is completed, for a driver that has
    /// accepted `features`. Without FLUSH or a mode to set it can never ask for stability.
    pub fn is_writethrough(&self, features: u64) -> bool {
        if has(features, VIRTIO_BLK_F_CONFIG_WCE) {
            self.mode() == WRITETHROUGH_MODE
        } else {
            !has(features, VIRTIO_BLK_F_FLUSH)
        }
    }
}

fn has(features: u64, bit: u32) -> bool {
    features & (1 << bit) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: u64 = 1 << VIRTIO_BLK_F_FLUSH;
    const WCE: u64 = 1 << VIRTIO_BLK_F_CONFIG_WCE;

    #[test]
    fn without_the_feature_the_mode_follows_from_flush() {
        let cache = WriteCache::default();
        cache.negotiated(FLUSH);
        assert!(!cache.is_writethrough(FLUSH));
        cache.negotiated(0);
        assert!(cache.is_writethrough(0));
    }

    #[test]
    fn the_driver_sets_the_mode_and_it_stays_until_the_reset() {
        let cache = WriteCache::default();
        cache.negotiated(FLUSH | WCE);
        assert_eq!(cache.mode(), 1);
        assert!(!cache.is_writethrough(FLUSH | WCE));
        cache.write(WRITEBACK, &[0]).unwrap();
        cache.negotiated(FLUSH | WCE);
        assert_eq!(cache.mode(), 0);
        assert!(cache.is_writethrough(FLUSH | WCE));
        cache.write(WRITEBACK, &[1]).unwrap();
        assert!(!cache.is_writethrough(FLUSH | WCE));
        cache.write(WRITEBACK, &[0]).unwrap();
        cache.reset();
        assert_eq!(cache.mode(), 1);
    }

    #[test]
    fn a_driver_that_cannot_flush_begins_with_writethrough() {
        let cache = WriteCache::default();
        cache.negotiated(WCE);
        assert_eq!(cache.mode(), 0);
        assert!(cache.is_writethrough(WCE));
    }

    #[test]
    fn nothing_else_is_written() {
        let cache = WriteCache::default();
        for (offset, bytes) in [
            (32, &[2][..]),
            (32, &[]),
            (32, &[0, 0]),
            (31, &[0]),
            (0, &[0]),
        ] {
            let error = cache.write(offset, bytes).unwrap_err().to_string();
            assert!(error.contains(&format!("at offset {offset}")), "{error}");
            assert_eq!(cache.mode(), 1);
        }
    }
}
