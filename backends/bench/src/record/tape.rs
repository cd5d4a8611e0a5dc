//! The recording that is being made.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::mirror::Witness;
use crate::recording::{Header, Item, WriteError, Writer};

/// Numbers requests and gives them their times. Unlike a trace it waits until what it is told is
/// with the kernel: a recording with holes could not be replayed.
pub struct Tape {
    began: Instant,
    state: Mutex<State>,
}

struct State {
    writer: Writer,
    requests: u64,
    /// Why there is nothing behind some place.
    error: Option<WriteError>,
}

impl Tape {
    pub fn create(
        path: &Path,
        device: String,
        device_type: Option<u32>,
    ) -> Result<Self, WriteError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let header = Header {
            device,
            device_type,
            // A clock before 1970 is set wrong, and nothing here depends on it.
            began: since.map_or(0, |since| since.as_secs()),
        };
        let state = State {
            writer: Writer::create(path, &header)?,
            requests: 0,
            error: None,
        };
        Ok(Self {
            began: Instant::now(),
            state: Mutex::new(state),
        })
    }

    /// Has all of it in the file for now.
    pub fn flush(&self) {
        let mut state = self.lock();
        let result = state.writer.flush();
        state.keep(result);
    }

    /// The number of requests, when all is written.
    pub fn finish(&self) -> Result<u64, WriteError> {
        self.flush();
        let mut state = self.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(state.requests),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Witness for Tape {
    fn number(&self) -> u64 {
        let mut state = self.lock();
        state.requests += 1;
        state.requests
    }

    fn now(&self) -> u64 {
        // 2^64 ns are 584 years.
        self.began.elapsed().as_nanos() as u64
    }

    fn tell(&self, item: Item) {
        let mut state = self.lock();
        let result = state.write(&item);
        state.keep(result);
    }
}

impl State {
    fn write(&mut self, item: &Item) -> Result<(), WriteError> {
        match self.error {
            None => self.writer.write(item),
            Some(_) => Ok(()),
        }
    }

    /// The first error is the one to tell of.
    fn keep(&mut self, result: Result<(), WriteError>) {
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}
