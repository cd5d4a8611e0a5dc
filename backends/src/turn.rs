//! A worker's stay with a ring, and when it has to tell driver and device of what it did there.

use std::io;
use std::time::{Duration, Instant};

use crate::ring::Ring;

/// How long a worker stays with a ring before it looks at anything else.
pub const TURN: Duration = Duration::from_millis(50);

/// Shortest time between two notifications within a pass. Fast requests share one; slow ones (a
/// disk that has to be read) each have their own.
const NOTIFY_AFTER: Duration = Duration::from_micros(50);

/// A worker's stay with a ring, and the news of it that driver and device have not been told.
///
/// It is asked after each request, so it keeps times that need only be compared.
pub struct Turn {
    /// When the worker has stayed long enough.
    end: Instant,
    /// When driver and device have waited long enough for news.
    due: Instant,
    untold: bool,
    /// The device has kept requests, and may wait for the pass to end before it starts them.
    has_kept: bool,
}

impl Turn {
    pub fn new(now: Instant) -> Self {
        Turn {
            end: now + TURN,
            due: now + NOTIFY_AFTER,
            untold: false,
            has_kept: false,
        }
    }

    /// Whether the worker has stayed long enough.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.end
    }

    /// A chain is the driver's again.
    pub fn completed(&mut self) {
        self.untold = true;
    }

    /// A chain is the device's for a while.
    pub fn kept(&mut self) {
        self.has_kept = true;
    }

    /// Whether somebody has waited long enough for news.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = (self.untold || self.has_kept) && now >= self.due;
        if is_due {
            self.due = now + NOTIFY_AFTER;
            self.has_kept = false;
        }
        is_due
    }

    /// Notifies the driver, if there is news and it wants to hear of it.
    pub fn notify(&mut self, ring: &mut Ring<'_>) -> io::Result<()> {
        if std::mem::take(&mut self.untold) {
            ring.notify()?;
        }
        Ok(())
    }
}
