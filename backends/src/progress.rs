//! The progress of a running ring, as far as it is not in guest memory.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::inflight::Tracker;
use crate::packed::PackedRing;

/// The state of a running ring, beside the ring itself.
#[derive(Debug)]
pub enum Progress {
    /// Of a split ring: the tracker, if the frontend has given this device a record.
    Split(Option<Tracker>),
    /// Of a packed ring: everything.
    Packed(PackedRing),
}

/// Where a ring's progress is: put there by the session, used by the device.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<Progress>>);

impl Default for Progress {
    fn default() -> Self {
        Progress::Split(None)
    }
}

impl Record {
    pub fn lock(&self) -> MutexGuard<'_, Progress> {
        // The state that counts is in the shared memory, which is consistent after every store.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
