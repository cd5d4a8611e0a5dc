//! Whether a driver has broken its device so that only a reset helps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_NEEDS_RESET;

/// DEVICE_NEEDS_RESET (virtio 1.4, section 2.1.2): set by a worker, told by the session where the
/// frontend asks for the device's status, and cleared by a reset.
#[derive(Debug, Clone, Default)]
pub struct NeedsReset(Arc<AtomicBool>);

impl NeedsReset {
    /// The device needs a reset. Whether that is news.
    pub fn set(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    /// The device has been reset.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    /// The bit of the device's status.
    pub(crate) fn bit(&self) -> u8 {
        match self.0.load(Ordering::Acquire) {
            true => VIRTIO_CONFIG_S_NEEDS_RESET as u8,
            false => 0,
        }
    }
}
