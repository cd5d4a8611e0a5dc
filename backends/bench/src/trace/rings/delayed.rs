//! Signals that a fault holds back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::interpose::{Interposed, put_back};

/// A kick or a call of a queue.
#[derive(Clone, Debug)]
pub struct Signal {
    pub queue: u8,
    pub is_kick: bool,
    pub wire: Arc<Interposed>,
}

#[derive(Debug, Default)]
pub struct Delayed {
    signals: Vec<(Instant, Signal)>,
}

impl Delayed {
    pub fn push(&mut self, delay: Duration, signal: Signal) {
        self.signals.push((Instant::now() + delay, signal));
    }

    /// How long the first has to wait.
    pub fn next(&self) -> Option<Duration> {
        let first = self.signals.iter().map(|(due, _)| *due).min()?;
        Some(first.saturating_duration_since(Instant::now()))
    }

    pub fn take_due(&mut self) -> Vec<Signal> {
        let now = Instant::now();
        let due = self.signals.extract_if(.., |(due, _)| *due <= now);
        due.map(|(_, signal)| signal).collect()
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        for (_, signal) in self.signals.iter().filter(|(_, signal)| signal.is_kick) {
            put_back(&signal.wire);
        }
    }
}
