//! The search for the kernel, on a thread of its own.
//!
//! It may read all of the image: seconds on a slow host. gdb waits for an answer three
//! times its `remotetimeout`, which is 2 seconds, and loses count of its packets then.
//! So the search begins when gdb attaches, and an answer that needs it waits for a
//! while, not for its end.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use super::locate::{self, Kernel};
use super::memory::Guest;
use super::not_found::NotFound;
use super::shared::{Canceller, SharedGuest};
use crate::symbol_file::SymbolFile;

/// How long after its beginning a search is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

type Outcome = Result<Kernel, NotFound>;

/// A search that has begun. It ends early when this is dropped.
pub(super) struct Search {
    outcome: Receiver<Outcome>,
    deadline: Instant,
    epoch: u64,
    _canceller: Canceller,
}

impl Search {
    pub fn start(guest: &dyn Guest, file: Option<Arc<SymbolFile>>) -> Self {
        let (place, canceller) = SharedGuest::of(guest);
        let (sender, outcome) = mpsc::channel();
        let search = move || {
            // The caller may have lost interest.
            let _ = sender.send(locate::kernel(&place, file.as_deref()));
        };
        let builder = thread::Builder::new().name("gdb search".into());
        if let Err(error) = builder.spawn(search) {
            tracing::warn!("gdb: the guest's kernel is not looked for: {error}");
        }
        Self {
            outcome,
            deadline: Instant::now() + PATIENCE,
            epoch: guest.epoch(),
            _canceller: canceller,
        }
    }

    /// Gives it as much time as at its beginning.
    pub fn renew(&mut self) {
        self.deadline = Instant::now() + PATIENCE;
    }

    /// Its result, if it ends within its time.
    pub fn wait(&self) -> Option<Outcome> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        match self.outcome.recv_timeout(left) {
            Ok(outcome) => Some(outcome),
            Err(RecvTimeoutError::Timeout) => None,
            // There is no thread.
            Err(RecvTimeoutError::Disconnected) => Some(Err(NotFound::TooEarly)),
        }
    }

    /// Its result, however long that takes.
    pub fn finish(&self) -> Outcome {
        self.outcome.recv().unwrap_or(Err(NotFound::TooEarly))
    }

    /// Whether the guest has run meanwhile: a kernel that was not found may be there now.
    pub fn is_outdated(&self, guest: &dyn Guest) -> bool {
        self.epoch != guest.epoch()
    }
}

#[cfg(test)]
#[path = "search_test.rs"]
mod tests;
