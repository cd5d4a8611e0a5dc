//! When to look for a backend that is gone.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use vmm_sys_util::timerfd::TimerFd;

/// Whether a backend that is gone is waited for. The driver's requests wait too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// The device needs a reset at once, and stays broken.
    Off,
    /// The device needs a reset if the backend is not back in this time, and
    /// stays broken.
    For(Duration),
    #[default]
    Forever,
}

/// The pause before the first attempt, which doubles with each one that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A backend that was there for this part of the last pause counts as sound: a
/// developer who rebuilds and restarts it, or kills it, should not wait.
const FORGIVENESS: u32 = 8;

/// Decides when attempts are made, and wakes up for them.
#[derive(Debug)]
pub struct ReconnectTimer {
    policy: Reconnect,
    timer: TimerFd,
    pause: Duration,
    /// When the backend went away, while it is.
    absent_since: Option<Instant>,
    /// When it last came back.
    present_since: Instant,
}

impl ReconnectTimer {
    pub fn new(policy: Reconnect) -> io::Result<Self> {
        Ok(Self {
            policy,
            timer: TimerFd::new()?,
            pause: FIRST_PAUSE,
            absent_since: None,
            present_since: Instant::now(),
        })
    }

    /// Whether attempts are made at all.
    pub fn is_on(&self) -> bool {
        self.policy != Reconnect::Off
    }

    /// Plans the next attempt, and returns the pause before it. A backend that
    /// keeps dying as soon as it is back is looked for less and less often.
    pub fn arm(&mut self) -> io::Result<Duration> {
        if self.absent_since.is_none() {
            self.absent_since = Some(Instant::now());
            if FORGIVENESS * self.present_since.elapsed() > self.pause {
                self.pause = FIRST_PAUSE;
            }
        }
        let pause = self.pause;
        self.pause = (2 * pause).min(LONGEST_PAUSE);
        self.arm_after(pause)?;
        Ok(pause)
    }

    /// Wakes up after `pause`, or earlier if time runs out.
    pub fn arm_after(&mut self, pause: Duration) -> io::Result<()> {
        let pause = self.left().map_or(pause, |left| left.min(pause));
        // A timer set to 0 is off.
        let pause = pause.max(Duration::from_nanos(1));
        Ok(self.timer.reset(pause, None)?)
    }

    /// Wakes up only if time runs out: something else tells of the backend.
    pub fn arm_at_limit(&mut self) -> io::Result<()> {
        match self.left() {
            Some(left) => self.arm_after(left),
            None => Ok(self.timer.reset(Duration::ZERO, None)?),
        }
    }

    /// The backend goes away on purpose, and is looked for at once.
    pub fn restart(&mut self) {
        self.absent_since = None;
        self.pause = FIRST_PAUSE;
        self.present_since = Instant::now();
    }

    /// The time until the backend is given up, if it ever is.
    fn left(&self) -> Option<Duration> {
        let Reconnect::For(limit) = self.policy else {
            return None;
        };
        Some(limit.saturating_sub(self.absent()))
    }

    /// How long the backend has been away.
    pub fn absent(&self) -> Duration {
        self.absent_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the backend has been away for too long.
    pub fn is_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }

    /// The backend is back.
    pub fn end(&mut self) {
        self.absent_since = None;
        self.present_since = Instant::now();
        self.disarm();
    }

    /// No longer wakes up.
    pub fn disarm(&mut self) {
        if let Err(error) = self.timer.reset(Duration::ZERO, None) {
            tracing::error!(%error, "cannot stop a timer");
        }
    }
}

/// Readable when it is time.
impl AsRawFd for ReconnectTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reading the timer waits for it.
    fn next_pause(reconnect_timer: &mut ReconnectTimer) -> Duration {
        let start = Instant::now();
        reconnect_timer.arm().unwrap();
        reconnect_timer.timer.wait().unwrap();
        start.elapsed()
    }

    #[test]
    fn pauses_grow_from_10_ms_to_a_second() {
        let mut reconnect_timer = ReconnectTimer::new(Reconnect::Forever).unwrap();
        for expected in [10, 20, 40] {
            assert!(next_pause(&mut reconnect_timer) >= Duration::from_millis(expected));
        }
        for _ in 0..10 {
            reconnect_timer.arm().unwrap();
        }
        assert_eq!(reconnect_timer.pause, LONGEST_PAUSE);
        assert!(!reconnect_timer.is_over());
    }

    #[test]
    fn a_backend_that_lasted_is_looked_for_at_once_and_one_that_did_not_is_not() {
        let mut reconnect_timer = ReconnectTimer::new(Reconnect::Forever).unwrap();
        reconnect_timer.pause = LONGEST_PAUSE;
        reconnect_timer.end();
        reconnect_timer.arm().unwrap();
        assert_eq!(reconnect_timer.pause, LONGEST_PAUSE);
        reconnect_timer.end();
        reconnect_timer.present_since = Instant::now() - 2 * LONGEST_PAUSE;
        reconnect_timer.arm().unwrap();
        assert_eq!(reconnect_timer.pause, 2 * FIRST_PAUSE);
    }

    #[test]
    fn patience_ends_and_no_pause_goes_beyond() {
        let limit = Duration::from_millis(15);
        let mut reconnect_timer = ReconnectTimer::new(Reconnect::For(limit)).unwrap();
        reconnect_timer.pause = Duration::from_secs(3600);
        reconnect_timer.present_since = Instant::now();
        assert!(next_pause(&mut reconnect_timer) < Duration::from_secs(3000));
        assert!(reconnect_timer.is_over());
        assert!(reconnect_timer.absent() >= limit);
        reconnect_timer.end();
        assert!(!reconnect_timer.is_over());
    }
}
