//! Adaptive polling: a thread looks for more to do for a moment before it sleeps.
//!
//! To be woken takes longer than many requests do. Polling pays where the next one comes soon, and
//! costs time on a processor where it does not. So it is left out after a sleep that was longer
//! than polling may last, and for more and more turns after it was in vain.

use std::time::{Duration, Instant};

/// Most turns left out in a row, as an exponent of two.
const MOST_VAIN: u32 = 8;

/// Whether one thread polls.
#[derive(Debug, Default)]
pub struct Polling {
    /// How long it may take; zero to never poll.
    limit: Duration,
    /// Since when the thread sleeps.
    asleep: Option<Instant>,
    /// The last sleep was short.
    is_busy: bool,
    /// How often it was in vain in a row.
    vain: u32,
    /// Turns still to be left out.
    skip: u32,
}

impl Polling {
    /// Polls for `limit`, where it pays.
    pub fn new(limit: Duration) -> Self {
        Polling {
            limit,
            ..Polling::default()
        }
    }

    /// The thread has something to do.
    pub fn wakes(&mut self, now: Instant) {
        if let Some(asleep) = self.asleep.take() {
            self.is_busy = now.duration_since(asleep) <= self.limit;
        }
    }

    /// The thread has nothing to do: until when it looks for more.
    pub fn until(&mut self, now: Instant) -> Option<Instant> {
        if self.limit.is_zero() || !self.is_busy {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        Some(now + self.limit)
    }

    /// Something was found at `now`, and more may come: until when to look now.
    pub fn extended(&self, now: Instant) -> Instant {
        now + self.limit
    }

    /// The result of a polling turn.
    pub fn found(&mut self, anything: bool) {
        if anything {
            self.vain = 0;
        } else {
            self.vain = MOST_VAIN.min(self.vain + 1);
            self.skip = (1 << self.vain) - 1;
        }
    }

    /// The thread goes to sleep.
    pub fn sleeps(&mut self, now: Instant) {
        self.asleep = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(50);

    /// A polling thread that was woken after `sleep`.
    fn woken_after(sleep: Duration) -> (Polling, Instant) {
        let (mut polling, now) = (Polling::new(LIMIT), Instant::now());
        polling.sleeps(now);
        polling.wakes(now + sleep);
        (polling, now + sleep)
    }

    #[test]
    fn only_a_busy_thread_polls() {
        let (mut idle, now) = woken_after(2 * LIMIT);
        assert_eq!(idle.until(now), None);
        let (mut busy, now) = woken_after(LIMIT / 2);
        assert_eq!(busy.until(now), Some(now + LIMIT));
        let mut never = Polling::new(Duration::ZERO);
        never.sleeps(now);
        never.wakes(now);
        assert_eq!(never.until(now), None);
    }

    #[test]
    fn what_is_in_vain_is_tried_less_and_less() {
        let (mut polling, now) = woken_after(LIMIT);
        let mut polls = 0;
        for _ in 0..1000 {
            if polling.until(now).is_some() {
                polls += 1;
                polling.found(false);
            }
        }
        assert_eq!(polls, 10);
        while polling.until(now).is_none() {}
        polling.found(true);
        assert!(polling.until(now).is_some() && polling.until(now).is_some());
    }
}
