//! Where the frontend hears that a ring cannot be processed (SET_VRING_ERR).

use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard};

/// A ring's error descriptor, if the frontend wants to hear of errors: set by the session,
/// signalled by the code that meets an error.
#[derive(Debug, Clone, Default)]
pub struct ErrorSign(Arc<Mutex<Option<File>>>);

impl ErrorSign {
    /// Sets the descriptor to signal from here on.
    pub(crate) fn set(&self, file: Option<File>) {
        *self.lock() = file;
    }

    /// Something is wrong with the ring.
    pub fn signal(&self) {
        if let Some(file) = &mut *self.lock() {
            // An error means that the signal is there already, or that nobody reads it.
            let _ = file.write(&1u64.to_ne_bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
