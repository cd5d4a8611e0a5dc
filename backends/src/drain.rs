//! A pump between its worker, which runs it, and the control thread, which waits until the ring
//! has nothing in flight.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::patience::LOG_EVERY;
use crate::pump::{Pump, Serve};
use crate::vring::Vring;

/// A pump, and the thread that waits for its pending requests.
#[derive(Debug)]
pub struct SharedPump {
    state: Mutex<State>,
    drained: Condvar,
}

#[derive(Debug)]
struct State {
    pump: Pump,
    /// The control thread waits.
    is_awaited: bool,
}

impl SharedPump {
    pub fn new(pump: Pump) -> Self {
        let is_awaited = false;
        SharedPump {
            state: Mutex::new(State { pump, is_awaited }),
            drained: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The room for requests is refilled before use: a panic elsewhere leaves nothing to fear.
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Changes how the pump is set up.
    pub fn configure<R>(&self, change: impl FnOnce(&mut Pump) -> R) -> R {
        change(&mut self.lock().pump)
    }

    /// [`Pump::run`], on the ring's worker.
    pub fn run(&self, vring: &Vring, server: impl Serve) -> io::Result<()> {
        let mut state = self.lock();
        let run = state.pump.run(vring, server);
        if state.is_awaited && state.pump.pending() == 0 {
            self.drained.notify_all();
        }
        run
    }

    /// Waits until nothing of `queue` is pending. Its ring has been stopped: the worker takes
    /// nothing more from it. Requests that are not finished within `limit` are given up.
    pub fn drain(&self, queue: u32, limit: Duration) -> io::Result<()> {
        let begun = Instant::now();
        let mut state = self.lock();
        state.is_awaited = true;
        while state.pump.pending() > 0 && begun.elapsed() < limit {
            let left = limit.saturating_sub(begun.elapsed());
            let wait = self.drained.wait_timeout(state, LOG_EVERY.min(left));
            let (locked, timeout) = wait.unwrap_or_else(|e| e.into_inner());
            state = locked;
            if timeout.timed_out() {
                tracing::warn!(
                    queue,
                    pending = state.pump.pending(),
                    "requests are in flight, and are waited for before the queue stops: for \
                     {:.0?} so far, and {limit:.0?} at most",
                    begun.elapsed(),
                );
            }
        }
        state.is_awaited = false;
        match state.pump.pending() {
            0 => Ok(()),
            pending => {
                state.pump.abandon();
                let text = format!("{pending} requests were not finished within {limit:?}");
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            }
        }
    }
}
