//! One request queue of the disk: it has requests done at once, by io_uring, or by threads.
//!
//! A queue is used by its worker alone.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::job::{self, Done, Job, Kind, Nowait};
use super::pool::{Outbox, Pool, Work};
use super::request::{Command, Disk, RequestError};
use super::uring::Uring;
use crate::ratelimit::RateLimit;
use crate::request::Request;
use crate::warn_limited;

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
}

impl Queue {
    /// A queue of `disk` that signals `event` when there is something to [`poll`](Self::poll).
    pub fn new(disk: Arc<Disk>, engine: Engine, pool: Arc<Pool>, event: Arc<EventFd>) -> Self {
        Queue {
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
        }
    }

    /// Executes `command`. `None` if that takes time, and the request was kept.
    pub fn begin(
        &mut self,
        command: Command,
        request: &mut Request,
    ) -> Option<Result<(), RequestError>> {
        if self.disk.image().file().is_none() {
            let (memory, chain, room) = request.parts();
            return Some(self.disk.execute(&command, memory, chain, room));
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
        self.outbox.drain(&mut finish);
        if let Ring::Ready(ring) = &mut self.ring
            && let Err(error) = ring.poll(&mut finish)
        {
            warn_limited!(LOG, %error, "io_uring takes no requests; trying again");
            // The only failure is a counter at its maximum, which is readable as it should be.
            let _ = self.event.write(1);
        }
    }
}
