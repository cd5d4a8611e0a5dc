//! A point in time by which something is over.

use std::time::{Duration, Instant};

/// Shared by all the waits of one operation, so that the operation as a whole
/// is bounded.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    budget: Duration,
}

impl Deadline {
    pub fn after(budget: Duration) -> Self {
        Self {
            end: Instant::now() + budget,
            budget,
        }
    }

    /// What is left, or `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        let left = self.end.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The time there was at the start.
    pub fn budget(&self) -> Duration {
        self.budget
    }
}
