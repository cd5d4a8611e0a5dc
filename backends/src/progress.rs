//! How far a ring has got while it runs, beside what is in guest memory.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::inflight::Tracker;
use crate::packed::PackedRing;

/// What is known of a ring while it runs, beside the ring itself.
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
        // Its truth is in the shared memory, which is right after every store.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}
