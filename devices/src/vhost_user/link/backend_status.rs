//! Whether the process behind a device is there, for others to see and wait for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The state of the process behind a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// How to reach it, in words.
    pub address: String,
    pub connected: bool,
    /// Its process, where that is known.
    pub pid: Option<u32>,
    /// It is started and ended from here, and has a process group of its own.
    pub is_supervised: bool,
    /// How often it has connected.
    pub connections: u64,
    /// How many that came since then did not get as far as to serve.
    pub failures: u64,
    /// What went wrong since the last connection, if something did.
    pub problem: Option<String>,
}

/// A [`Backend`] that can be waited for without the device's lock.
#[derive(Debug, Default)]
pub struct BackendStatus {
    state: Mutex<Backend>,
    changed: Condvar,
}

impl BackendStatus {
    pub fn new(address: String, is_supervised: bool) -> Self {
        Self {
            state: Mutex::new(Backend {
                address,
                is_supervised,
                ..Backend::default()
            }),
            changed: Condvar::new(),
        }
    }

    pub fn get(&self) -> Backend {
        self.lock().clone()
    }

    pub(crate) fn connected(&self, pid: Option<u32>) {
        let mut state = self.lock();
        state.connected = true;
        state.pid = pid;
        state.connections += 1;
        state.problem = None;
        state.failures = 0;
        self.changed.notify_all();
    }

    pub(crate) fn away(&self, problem: String) {
        let mut state = self.lock();
        state.connected = false;
        state.pid = None;
        state.problem = Some(problem);
        self.changed.notify_all();
    }

    pub(crate) fn failed(&self, problem: String) {
        self.lock().failures += 1;
        self.away(problem);
    }

    /// Waits until `found`, or until the time is over, and returns what is then.
    pub fn wait_until(&self, within: Duration, found: impl Fn(&Backend) -> bool) -> Backend {
        let end = Instant::now() + within;
        let mut state = self.lock();
        while !found(&state) {
            let Some(left) = end.checked_duration_since(Instant::now()) else {
                break;
            };
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.clone()
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
        let backend_status = BackendStatus::new("at /a".into(), false);
        backend_status.connected(Some(1));
        backend_status.away("it died".into());
        backend_status.failed("it died again".into());
        let another = |state: &Backend| state.connections > 1;
        let state = backend_status.wait_until(Duration::from_millis(5), another);
        assert_eq!((state.connections, state.failures), (1, 1));
        assert_eq!(state.problem.as_deref(), Some("it died again"));
        thread::scope(|scope| {
            let waiting =
                scope.spawn(|| backend_status.wait_until(Duration::from_secs(60), another));
            backend_status.connected(Some(1));
            let state = waiting.join().unwrap();
            assert!(state.connected && state.problem.is_none());
            assert_eq!((state.connections, state.failures), (2, 0));
        });
    }
}
