//! A bound on the bytes that a guest takes from the host's entropy source.

use std::io;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// So many bytes in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// Bytes in a period, at least one.
    pub max_bytes: u64,
    /// Length of a period.
    pub period: Duration,
}

/// The rest of the current period.
#[derive(Debug)]
pub struct Budget {
    limit: Limit,
    left: u64,
    end: Instant,
    /// Expires with a period in which somebody was told to wait.
    timer: TimerFd,
}

impl Budget {
    /// A first period begins at `now`.
    pub fn new(limit: Limit, now: Instant) -> io::Result<Self> {
        Ok(Budget {
            limit,
            left: limit.max_bytes,
            end: now + limit.period,
            timer: TimerFd::new()?,
        })
    }

    /// How many of `wanted` bytes may be given now. Where it is none, the timer tells when to ask
    /// again.
    pub fn granted(&mut self, wanted: u64, now: Instant) -> io::Result<u64> {
        if now >= self.end {
            self.left = self.limit.max_bytes;
            self.end = now + self.limit.period;
        }
        if self.left == 0 {
            self.timer.reset(self.end - now, None)?;
        }
        Ok(wanted.min(self.left))
    }

    /// So many bytes have been given.
    pub fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Readable when a period is over in which somebody was told to wait.
    pub fn timer(&self) -> &impl AsRawFd {
        &self.timer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_gives_its_bytes_and_no_more() {
        let (now, period) = (Instant::now(), Duration::from_secs(1));
        let limit = Limit {
            max_bytes: 10,
            period,
        };
        let mut budget = Budget::new(limit, now).unwrap();
        assert_eq!(budget.granted(8, now).unwrap(), 8);
        budget.spend(8);
        assert_eq!(budget.granted(8, now + period / 2).unwrap(), 2);
        budget.spend(2);
        assert_eq!(budget.granted(8, now + period / 2).unwrap(), 0);
        assert_eq!(budget.granted(8, now + period).unwrap(), 8);
        // A period that nobody used does not add to the next.
        assert_eq!(budget.granted(99, now + 5 * period).unwrap(), 10);
    }

    #[test]
    fn the_timer_tells_when_to_ask_again() {
        let now = Instant::now();
        let limit = Limit {
            max_bytes: 1,
            period: Duration::from_millis(20),
        };
        let mut budget = Budget::new(limit, now).unwrap();
        budget.spend(1);
        assert_eq!(budget.granted(1, now).unwrap(), 0);
        budget.timer.wait().unwrap();
        assert_eq!(budget.granted(1, Instant::now()).unwrap(), 1);
    }
}
