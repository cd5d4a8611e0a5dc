//! A bound on what a guest can make the VMM log.

use std::time::{Duration, Instant};

/// Admits a burst, then the same number again each period.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    period: Duration,
    started: Option<Instant>,
    admitted: u32,
    suppressed: u64,
}

impl RateLimit {
    pub const fn new(burst: u32, period: Duration) -> Self {
        Self {
            burst,
            period,
            started: None,
            admitted: 0,
            suppressed: 0,
        }
    }

    /// `None` when the event is turned away; otherwise how many were turned
    /// away since the last one that was admitted.
    pub fn admit(&mut self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&mut self, now: Instant) -> Option<u64> {
        let over = |started| now.duration_since(started) >= self.period;
        if self.started.is_none_or(over) {
            self.started = Some(now);
            self.admitted = 0;
        }
        if self.admitted >= self.burst {
            self.suppressed += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_to_the_burst_and_counted() {
        let mut limit = RateLimit::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let admitted = (0..100).filter(|_| limit.admit_at(start).is_some()).count();
        assert_eq!(admitted, 2);
        let later = start + Duration::from_secs(1);
        assert_eq!(limit.admit_at(later), Some(98));
        assert_eq!(limit.admit_at(later), Some(0));
        assert_eq!(limit.admit_at(later), None);
    }
}
