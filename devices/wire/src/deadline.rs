//! A point in time by which something is over.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Shared by all the waits of one operation, an access of the guest for instance, so that
/// the operation as a whole is bounded. Made where it begins and handed down.
#[derive(Clone, Debug)]
pub struct Deadline {
    end: Cell<Instant>,
    budget: Duration,
}

impl Deadline {
    pub fn after(budget: Duration) -> Self {
        Self {
            end: Cell::new(Instant::now() + budget),
            budget,
        }
    }

    /// What is left, or `None` when it is over.
    pub fn left(&self) -> Option<Duration> {
        let left = self.end.get().saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// The time there was at the start.
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// Runs a wait that has a deadline of its own: its time does not count here.
    pub fn suspended<T>(&self, wait: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = wait();
        self.end.set(self.end.get() + begun.elapsed());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_deadline_of_its_own_does_not_count() {
        let deadline = Deadline::after(Duration::from_millis(50));
        let own = Deadline::after(Duration::from_millis(60));
        deadline.suspended(|| while own.left().is_some() {});
        assert!(deadline.left().is_some());
        while deadline.left().is_some() {}
        assert!(own.left().is_none());
        assert_eq!(deadline.budget(), Duration::from_millis(50));
    }
}
