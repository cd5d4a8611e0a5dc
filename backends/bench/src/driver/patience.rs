//! How long a driver waits for its backend.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// No wait is shorter: whatever is served at all is served sooner on a busy host too.
const LEAST: Duration = Duration::from_millis(150);

/// What a wait is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaited {
    /// A reply, or that a message is taken.
    Message,
    /// A used buffer of the queue with this index.
    Buffer(usize),
    /// A used buffer notification of the queue with this index.
    Notification(usize),
    /// That a process listens.
    Listener,
    /// That a process ends when it is asked to.
    End,
}

/// Waits that were in vain. Each halves the next ones for the same thing, so that many checks of
/// a backend that never answers on some queue end in bounded time, and the other queues have all
/// the time that they had. A clone is the same patience.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    in_vain: Arc<Mutex<BTreeMap<Awaited, u32>>>,
}

impl Patience {
    /// How long to wait for what may take `most` as long as no wait for it was in vain.
    pub fn limit(&self, awaited: Awaited, most: Duration) -> Duration {
        let count = self.counts().get(&awaited).copied().unwrap_or(0);
        let divisor = 1u32.checked_shl(count).unwrap_or(u32::MAX);
        (most / divisor).max(LEAST.min(most))
    }

    /// A wait was in vain.
    pub fn ran_out(&self, awaited: Awaited) {
        let mut counts = self.counts();
        let count = counts.entry(awaited).or_default();
        *count = count.saturating_add(1);
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<Awaited, u32>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "patience_test.rs"]
mod tests;
