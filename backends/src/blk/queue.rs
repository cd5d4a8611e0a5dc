//! One request queue of the disk: it has requests done at once, by io_uring, or by threads.
//!
//! A queue is used by its worker alone.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::timerfd::TimerFd;

use super::full::Full;
use super::job::{self, Done, Job, Kind, Nowait};
use super::pool::{Outbox, Pool, Work};
use super::request::{Command, Disk, RequestError};
use super::uring::Uring;
use crate::ratelimit::RateLimit;
use crate::request::Request;
use crate::warn_limited;

/// Until io_uring is tried again: the kernel lacks memory.
const AGAIN: Duration = Duration::from_millis(10);

static LOG: RateLimit = RateLimit::for_logs();

/// The means to serve requests that take time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The kernel's.
    Uring,
    /// Our own.
    Threads,
}

impl Engine {
    /// The best that this host has.
    pub fn probe() -> Self {
        match Uring::probe() {
            Ok(()) => Engine::Uring,
            Err(error) => {
                tracing::warn!(%error, "io_uring cannot be used here; threads serve requests instead");
                Engine::Threads
            }
        }
    }
}

enum Ring {
    /// The worker has not created it yet: a ring belongs to the thread that creates it.
    Untried,
    Ready(Box<Uring>),
    Refused,
}

/// A request queue.
pub struct Queue {
    disk: Arc<Disk>,
    event: Arc<EventFd>,
    ring: Ring,
    pool: Arc<Pool>,
    outbox: Arc<Outbox>,
    nowait: Nowait,
    full: Full,
    /// When to try io_uring again, which takes no requests.
    refused: Option<Instant>,
    timer: TimerFd,
}

impl Queue {
    /// A queue of `disk` that signals `event` when there is something to [`poll`](Self::poll).
    pub fn new(
        disk: Arc<Disk>,
        engine: Engine,
        pool: Arc<Pool>,
        event: Arc<EventFd>,
        full: Full,
    ) -> io::Result<Self> {
        Ok(Queue {
            ring: match engine {
                Engine::Uring => Ring::Untried,
                Engine::Threads => Ring::Refused,
            },
            outbox: Arc::new(Outbox::new(Arc::clone(&event))),
            nowait: match disk.image().alignment() {
                Some(_) => Nowait::DIRECT,
                None => Nowait::UNTRIED,
            },
            disk,
            event,
            pool,
            full,
            refused: None,
            timer: TimerFd::new()?,
        })
    }

    /// Executes the request's command. `None` if that takes time, and the request was kept.
    pub fn begin(&mut self, request: &mut Request) -> Option<Result<(), RequestError>> {
        let memory = request.memory();
        let command = self.disk.parse(memory, &request.chain, request.features);
        let result = match command {
            Ok(command) => self.execute(command, request)?,
            Err(error) => Err(error),
        };
        if self.full.takes(&result) {
            self.full.hold(request.keep());
            self.set_timer();
            return None;
        }
        Some(result)
    }

    fn execute(
        &mut self,
        command: Command,
        request: &mut Request,
    ) -> Option<Result<(), RequestError>> {
        let is_nothing = matches!(command, Command::Nothing);
        if !is_nothing && self.disk.image().file().is_none() {
            return self.hand_over(Work::Command(request.keep(), command));
        }
        if let Err(error) = command.describe(request) {
            return Some(Err(error));
        }
        match command {
            Command::Nothing => Some(Ok(())),
            Command::Flush => self.hand_over(Work::Flush(request.keep())),
            Command::Read { offset, .. } => self.transfer(request, Kind::Read, offset),
            Command::Write {
                offset, durable, ..
            } => self.transfer(request, Kind::Write { durable }, offset),
            Command::Ranges(ranges) => self.hand_over(Work::Change(request.keep(), ranges)),
        }
    }

    /// Does at once as much as the page cache can, and starts the rest.
    fn transfer(
        &mut self,
        request: &mut Request,
        kind: Kind,
        offset: u64,
    ) -> Option<Result<(), RequestError>> {
        let file = self.disk.image().file()?;
        match job::now(request, kind, offset, file, &mut self.nowait) {
            Ok(_) if request.room.rest().is_empty() => Some(Ok(())),
            Ok(count) => self.start(request, kind, offset + count as u64),
            Err(error) => Some(Err(error.into())),
        }
    }

    /// Starts a request that takes time.
    fn start(
        &mut self,
        request: &mut Request,
        kind: Kind,
        offset: u64,
    ) -> Option<Result<(), RequestError>> {
        let mut job = Job::new(request.keep(), kind, offset);
        if let Some(alignment) = self.disk.image().alignment()
            && let Err(error) = job.align(alignment)
        {
            let done = job.done(Err(io::Error::other(error)));
            self.outbox.push(done);
            return None;
        }
        match self.ring() {
            Some(ring) => ring.start(job),
            None => return self.hand_over(Work::Job(job)),
        }
        None
    }

    fn hand_over(&self, work: Work) -> Option<Result<(), RequestError>> {
        self.pool.execute(work, &self.outbox);
        None
    }

    fn ring(&mut self) -> Option<&mut Uring> {
        if let Ring::Untried = self.ring {
            let file = self.disk.image().file()?;
            self.ring = match Uring::new(file, self.event.as_raw_fd()) {
                Ok(ring) => Ring::Ready(Box::new(ring)),
                Err(error) => {
                    tracing::warn!(%error, "no io_uring for this queue; threads serve it instead");
                    Ring::Refused
                }
            };
        }
        match &mut self.ring {
            Ring::Ready(ring) => Some(ring),
            _ => None,
        }
    }

    /// Hands over finished requests.
    pub fn poll(&mut self, mut finish: impl FnMut(Done)) {
        for mut request in self.full.retry() {
            if let Some(result) = self.begin(&mut request) {
                finish(Done { request, result });
            }
        }
        let full = &mut self.full;
        let mut finish = |done: Done| match full.takes(&done.result) {
            true => full.hold(done.request),
            false => finish(done),
        };
        self.outbox.drain(&mut finish);
        self.refused = None;
        if let Ring::Ready(ring) = &mut self.ring
            && let Err(error) = ring.poll(&mut finish)
        {
            warn_limited!(LOG, %error, "io_uring takes no requests; trying again");
            self.refused = Some(Instant::now() + AGAIN);
        }
        self.set_timer();
    }

    /// Has the timer run until something is to be tried again.
    fn set_timer(&mut self) {
        let due = [self.full.due(), self.refused].into_iter().flatten().min();
        if let Some(due) = due {
            let left = due.saturating_duration_since(Instant::now());
            // No time at all would stop it.
            let left = left.max(Duration::from_micros(1));
            // No other time is invalid.
            let _ = self.timer.reset(left, None);
        }
    }

    /// The requests that are not finished, because the queue stops and the host has no space.
    pub fn give_up(&mut self) -> Vec<Request> {
        self.full.give_up()
    }

    /// The queue begins or ceases to stop.
    pub fn set_stopping(&mut self, is_stopping: bool) {
        self.full.set_stopping(is_stopping);
        // The only failure is a counter at its maximum, which is readable as it should be.
        let _ = self.event.write(1);
    }

    /// Readable when there is something to [`poll`](Self::poll), beside the event.
    pub fn timer(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}
