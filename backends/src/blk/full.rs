//! Requests for which the host has no space left. They wait until it has, as QEMU's do
//! (`werror=enospc`): a guest that gets an error makes its file system read-only.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::request::RequestError;
use crate::request::Request;

/// How often the requests are tried again: nobody tells when there is space.
const INTERVAL: Duration = Duration::from_secs(1);

/// What becomes of a request for which the host has no space left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Enospc {
    /// It is held, and tried again every second.
    #[default]
    Wait,
    /// It fails.
    Error,
}

/// The requests of one queue that wait for space.
#[derive(Debug)]
pub struct Full {
    policy: Enospc,
    held: Vec<Request>,
    /// When to try again. `None` while there is space.
    due: Option<Instant>,
    /// The queue stops, and none of its requests may wait.
    is_stopping: bool,
    /// The disk's queues without space.
    queues: Arc<AtomicUsize>,
}

impl Full {
    /// For one of the queues that share `queues`.
    pub fn new(policy: Enospc, queues: Arc<AtomicUsize>) -> Self {
        Full {
            policy,
            held: Vec::new(),
            due: None,
            is_stopping: false,
            queues,
        }
    }

    /// When it is time to try again.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a request with this result is to be held.
    pub fn takes(&self, result: &Result<(), RequestError>) -> bool {
        let is_full = |error: &io::Error| {
            let kind = error.kind();
            matches!(
                kind,
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            )
        };
        let policy = self.policy == Enospc::Wait && !self.is_stopping;
        policy && matches!(result, Err(RequestError::Io(error)) if is_full(error))
    }

    /// Holds a request.
    pub fn hold(&mut self, request: Request) {
        self.held.push(request);
        if self.due.is_some() {
            return;
        }
        self.due = Some(Instant::now() + INTERVAL);
        if self.queues.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(
                "the host has no space left for the image; requests are held and tried again \
                 every second"
            );
        }
    }

    /// The requests that are to be tried again, if it is time.
    pub fn retry(&mut self) -> Vec<Request> {
        let now = Instant::now();
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        match self.held.is_empty() {
            // Those that were tried have been served since.
            true => self.end("there is space for the image again"),
            false => self.due = Some(now + INTERVAL),
        }
        std::mem::take(&mut self.held)
    }

    fn end(&mut self, text: &str) {
        self.due = None;
        if self.queues.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("{text}");
        }
    }

    /// The queue begins or ceases to stop.
    pub fn set_stopping(&mut self, is_stopping: bool) {
        self.is_stopping = is_stopping;
    }

    /// The requests that cannot wait, because the queue stops.
    pub fn give_up(&mut self) -> Vec<Request> {
        if !self.is_stopping {
            return Vec::new();
        }
        if self.due.is_some() {
            self.end("a queue without space stops");
        }
        std::mem::take(&mut self.held)
    }
}
