//! A bound on log lines that a guest or a frontend can cause.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Lets `burst` events through per `period` and counts the rest.
#[derive(Debug)]
pub struct RateLimit {
    burst: u32,
    period: Duration,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    start: Option<Instant>,
    passed: u32,
    suppressed: u64,
}

impl RateLimit {
    /// A limit of `burst` events in every `period`.
    pub const fn new(burst: u32, period: Duration) -> Self {
        RateLimit {
            burst,
            period,
            window: Mutex::new(Window {
                start: None,
                passed: 0,
                suppressed: 0,
            }),
        }
    }

    /// The limit for log lines about a guest's or a peer's mistakes: ten in ten seconds.
    pub const fn for_logs() -> Self {
        RateLimit::new(10, Duration::from_secs(10))
    }

    /// Whether one more event may pass now; if so, how many were suppressed since the last one
    /// that did.
    pub fn allow(&self) -> Option<u64> {
        self.allow_at(Instant::now())
    }

    fn allow_at(&self, now: Instant) -> Option<u64> {
        // A poisoned lock guards plain counters: they are usable whatever happened.
        let mut window = self.window.lock().unwrap_or_else(|e| e.into_inner());
        let expired = window
            .start
            .is_none_or(|start| now.duration_since(start) >= self.period);
        if expired {
            window.start = Some(now);
            window.passed = 0;
        }
        if window.passed < self.burst {
            window.passed += 1;
            Some(std::mem::take(&mut window.suppressed))
        } else {
            window.suppressed += 1;
            None
        }
    }
}

/// Logs at a level unless a [`RateLimit`] is exhausted:
/// `log_limited!(info, limit, field = value, "message")`.
#[macro_export]
macro_rules! log_limited {
    ($level:ident, $limit:expr, $($arg:tt)+) => {
        if let Some(suppressed) = $limit.allow() {
            if suppressed > 0 {
                ::tracing::$level!(suppressed, "earlier messages of this kind were suppressed");
            }
            ::tracing::$level!($($arg)+);
        }
    };
}

/// Logs a warning unless its [`RateLimit`] is exhausted:
/// `warn_limited!(limit, field = value, "message")`.
#[macro_export]
macro_rules! warn_limited {
    ($($arg:tt)+) => { $crate::log_limited!(warn, $($arg)+) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_counted() {
        let limit = RateLimit::new(2, Duration::from_secs(10));
        let t0 = Instant::now();
        assert_eq!(limit.allow_at(t0), Some(0));
        assert_eq!(limit.allow_at(t0), Some(0));
        assert_eq!(limit.allow_at(t0 + Duration::from_secs(1)), None);
        assert_eq!(limit.allow_at(t0 + Duration::from_secs(9)), None);
        assert_eq!(limit.allow_at(t0 + Duration::from_secs(10)), Some(2));
        assert_eq!(limit.allow_at(t0 + Duration::from_secs(11)), Some(0));
        assert_eq!(limit.allow_at(t0 + Duration::from_secs(12)), None);
    }
}
