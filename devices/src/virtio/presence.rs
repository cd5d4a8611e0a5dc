//! Whether the process behind a device is there, for others to see and wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The state of the process behind a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// How to reach it, in words.
    pub address: String,
    pub connected: bool,
    /// How often it has connected.
    pub connections: u64,
    /// What went wrong since the last connection, if something did.
    pub problem: Option<String>,
}

/// A [`Backend`] that can be waited for without the device's lock.
#[derive(Debug, Default)]
pub struct Presence {
    state: Mutex<Backend>,
    changed: Condvar,
}

impl Presence {
    pub fn new(address: String) -> Self {
        Self {
            state: Mutex::new(Backend {
                address,
                ..Backend::default()
            }),
            changed: Condvar::new(),
        }
    }

    pub fn get(&self) -> Backend {
        self.lock().clone()
    }

    pub(crate) fn connected(&self) {
        let mut state = self.lock();
        state.connected = true;
        state.connections += 1;
        state.problem = None;
        self.changed.notify_all();
    }

    pub(crate) fn away(&self, problem: String) {
        let mut state = self.lock();
        state.connected = false;
        state.problem = Some(problem);
        self.changed.notify_all();
    }

    /// Waits until it has connected more than `before` times; `false` when the
    /// time is over.
    pub fn wait_for_another(&self, before: u64, within: Duration) -> bool {
        let end = Instant::now() + within;
        let mut state = self.lock();
        while state.connections <= before {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                return false;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Backend> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn another_connection_ends_the_wait_and_the_time_does() {
        let presence = Presence::new("at /a".into());
        presence.connected();
        presence.away("it died".into());
        assert!(!presence.wait_for_another(1, Duration::from_millis(5)));
        assert_eq!(presence.get().problem.as_deref(), Some("it died"));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| presence.wait_for_another(1, Duration::from_secs(60)));
            presence.connected();
            assert!(waiting.join().unwrap());
        });
        let state = presence.get();
        assert!(state.connected && state.problem.is_none());
        assert_eq!(state.connections, 2);
    }
}
