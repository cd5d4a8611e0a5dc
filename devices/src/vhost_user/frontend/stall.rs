//! How long a queue has not been served.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// A queue that is not served for longer is reported.
pub const LONG: Duration = Duration::from_secs(10);

/// Says when to check.
pub struct CheckTimer(TimerFd);

impl CheckTimer {
    /// None, until there are [some](Self::every).
    pub fn new() -> io::Result<Self> {
        Ok(Self(TimerFd::new()?))
    }

    /// At this interval from now on, or no longer.
    pub fn every(&mut self, interval: Option<Duration>) {
        let set = match interval {
            Some(interval) => self.0.reset(interval, Some(interval)),
            None => self.0.clear(),
        };
        if let Err(error) = set {
            tracing::error!(%error, "cannot set a timer");
        }
    }

    /// Readable no longer.
    pub fn take(&mut self) {
        if self.0.is_armed().unwrap_or(false) {
            // It is readable, or the next check is not far.
            let _ = self.0.wait();
        }
    }
}

/// Readable when it is time.
impl AsRawFd for CheckTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// The findings about one queue at consecutive checks.
#[derive(Debug, Default)]
pub struct Stall {
    /// When it was seen first, and the used index since then.
    since: Option<(Instant, u16)>,
    is_reported: bool,
}

impl Stall {
    /// Checks again. Whether the queue is to be reported now.
    pub fn check(&mut self, waits: bool, used: u16) -> bool {
        match self.since {
            _ if !waits => *self = Self::default(),
            Some((_, before)) if before == used => {}
            _ => {
                *self = Self {
                    since: Some((Instant::now(), used)),
                    is_reported: false,
                };
            }
        }
        let is_long = self.time(used) >= LONG;
        is_long && !std::mem::replace(&mut self.is_reported, true)
    }

    /// For how long nothing has been used, if the used index is `used` now.
    pub fn time(&self, used: u16) -> Duration {
        let since = self.since.filter(|(_, before)| *before == used);
        since.map_or(Duration::ZERO, |(since, _)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(stall: &mut Stall, by: Duration) {
        let (since, _) = stall.since.as_mut().unwrap();
        *since -= by;
    }

    #[test]
    fn a_queue_is_spoken_of_once_when_it_has_waited_for_long() {
        let mut stall = Stall::default();
        assert!(!stall.check(true, 7));
        age(&mut stall, LONG / 2);
        assert!(!stall.check(true, 7));
        age(&mut stall, LONG / 2);
        assert!(stall.check(true, 7));
        assert!(!stall.check(true, 7), "once");
        assert!(stall.time(7) >= LONG);
        assert_eq!(stall.time(8), Duration::ZERO);
    }

    #[test]
    fn whatever_is_done_begins_the_wait_again() {
        for (waits, used) in [(false, 7), (true, 8)] {
            let mut stall = Stall::default();
            stall.check(true, 7);
            age(&mut stall, LONG);
            assert!(!stall.check(waits, used));
            assert!(stall.time(used) < LONG);
            assert!(!stall.check(true, 8));
        }
    }
}
