//! Whether the process behind a device is there, for others to see and wait for.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
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
    observer: OnceLock<Observer>,
}

/// Told of each connection, and of its loss.
struct Observer(Box<dyn Fn(&Backend) + Send + Sync>);

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
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
            observer: OnceLock::new(),
        }
    }

    pub fn get(&self) -> Backend {
        self.lock().clone()
    }

    /// Has `observer` told of each connection from here on, and of its loss. It is called
    /// with the device's lock held, and must not wait. There is one: a later one is dropped.
    pub fn observe(&self, observer: impl Fn(&Backend) + Send + Sync + 'static) {
        let _ = self.observer.set(Observer(Box::new(observer)));
    }

    pub(crate) fn connected(&self, pid: Option<u32>) {
        let mut state = self.lock();
        state.connected = true;
        state.pid = pid;
        state.connections += 1;
        state.problem = None;
        state.failures = 0;
        self.tell(state);
    }

    pub(crate) fn away(&self, problem: String) {
        let mut state = self.lock();
        let is_lost = std::mem::replace(&mut state.connected, false);
        state.pid = None;
        state.problem = Some(problem);
        match is_lost {
            true => self.tell(state),
            false => self.changed.notify_all(),
        }
    }

    /// Tells all of a new connection, or of a loss.
    fn tell(&self, state: MutexGuard<'_, Backend>) {
        self.changed.notify_all();
        if let Some(Observer(observer)) = self.observer.get() {
            let backend = state.clone();
            drop(state);
            observer(&backend);
        }
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
    fn an_observer_is_told_of_connections_and_losses_alone() {
        let backend_status = BackendStatus::new("at /a".into(), false);
        backend_status.connected(None);
        let told = std::sync::Arc::new(Mutex::new(Vec::new()));
        let teller = told.clone();
        backend_status.observe(move |backend| {
            let state = (backend.connected, backend.problem.clone());
            teller.lock().unwrap().push(state);
        });
        backend_status.away("it died".into());
        backend_status.failed("it died again".into());
        backend_status.connected(None);
        let expected = [(false, Some("it died".into())), (true, None)];
        assert_eq!(*told.lock().unwrap(), expected);
    }

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
