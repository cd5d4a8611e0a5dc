//! The rings of a session in a replay, and the requests in them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::arena::Arena;
use super::compare::Answer;
use super::error::LaneError;
use super::requests::Requests;
use crate::driver::{
    DEADLINE, DriverError, Format, Queue, QueueFeatures, Session, Used, wait_readable,
};
use crate::recording::{Start, Submit};

/// How often the connection is looked at while an answer is waited for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Default)]
pub struct Traffic {
    requests: Requests,
    running: BTreeSet<u8>,
}

impl Traffic {
    /// With buffers in this part of memory.
    pub fn new(arena: Arena) -> Self {
        Self {
            requests: Requests::new(arena),
            running: BTreeSet::new(),
        }
    }

    /// No ring runs any more.
    pub fn reset(&mut self) {
        self.running.clear();
        self.requests.forget(|_| true);
    }

    pub fn start(
        &mut self,
        session: &mut Session,
        start: Start,
        features: QueueFeatures,
    ) -> Result<(), LaneError> {
        let index = usize::from(start.queue);
        let mut queue = Queue::new(session.memory(), index, start.size, features)?;
        // Nothing is in flight.
        let base = match features.format {
            Format::Split => start.base,
            Format::Packed => (start.base & 0xffff) | start.base << 16,
        };
        queue.rebase(base)?;
        *session.queue_mut(index) = queue;
        session.restart(index, base)?;
        session.queue(index).kick();
        self.running.insert(start.queue);
        Ok(())
    }

    pub fn enable(&mut self, session: &mut Session, queue: u8, on: bool) -> Result<(), LaneError> {
        if self.running.contains(&queue) {
            session.enable(queue.into(), on)?;
        }
        Ok(())
    }

    pub fn stop(&mut self, session: &mut Session, queue: u8) -> Result<(), LaneError> {
        if self.running.contains(&queue) {
            session.stop(queue.into())?;
            self.collect(session, queue)?;
            self.running.remove(&queue);
        }
        self.requests.forget(|placed| placed == queue);
        Ok(())
    }

    /// Puts a request into the ring, without making it available. Where nothing is an answer and
    /// the ring is full, there is one buffer less.
    pub fn stage(
        &mut self,
        session: &mut Session,
        request: &Submit,
        is_external: bool,
    ) -> Result<(), LaneError> {
        let index = usize::from(request.queue);
        let needed = descriptors(request);
        if session.queue(index).free() < needed {
            self.collect(session, request.queue)?;
        }
        if session.queue(index).free() < needed {
            return match is_external {
                true => Ok(()),
                false => Err(LaneError::Full(request.queue)),
            };
        }
        let placed = self
            .requests
            .place(session.memory(), request, is_external)?;
        let Some(chain) = placed else {
            return match is_external {
                true => Ok(()),
                false => Err(LaneError::MemoryFull),
            };
        };
        let id = session.queue_mut(index).stage(&chain)?;
        self.requests.staged(request.queue, id, request.number);
        Ok(())
    }

    /// The answer to a request; or why there is none.
    pub fn wait(
        &mut self,
        session: &mut Session,
        queue: u8,
        number: u64,
    ) -> Result<Answer, String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let looked = self.collect(session, queue);
            if let Some(answer) = self.requests.take(number) {
                return Ok(answer);
            }
            looked.map_err(|error| error.to_string())?;
            if Instant::now() >= end {
                return Err(format!("it did not come within {DEADLINE:?}"));
            }
            self.wait_for_any(session, queue)?;
        }
    }

    /// Waits until something may have come back, or for a while.
    fn wait_for_any(&mut self, session: &mut Session, queue: u8) -> Result<(), String> {
        let text = |error: DriverError| error.to_string();
        let waiting = session.queue_mut(queue.into());
        waiting.forget_notifications();
        waiting.set_notify(true).map_err(text)?;
        let used = match waiting.poll_used() {
            Ok(None) => waiting.wait_used_within(LOOK).map(Some),
            polled => polled,
        };
        match used {
            Ok(Some(used)) => self.arrive(session, queue, used).map_err(text),
            Ok(None) | Err(DriverError::NotUsed { .. }) => {
                // No backend says anything that it is not asked for on this socket.
                let is_gone = wait_readable(session.frontend().stream(), Duration::ZERO);
                let has_none = self.collect(session, queue).is_ok_and(|count| count == 0);
                match is_gone {
                    Ok(true) if has_none => Err("the backend has hung up".into()),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(text(error)),
        }
    }

    /// Takes in what has come back; returns how many requests.
    fn collect(&mut self, session: &mut Session, queue: u8) -> Result<usize, DriverError> {
        let mut count = 0;
        while let Some(used) = session.queue_mut(queue.into()).poll_used()? {
            self.arrive(session, queue, used)?;
            count += 1;
        }
        Ok(count)
    }

    fn arrive(&mut self, session: &Session, queue: u8, used: Used) -> Result<(), DriverError> {
        self.requests
            .arrive(session.memory(), queue, used.id, used.len)
    }
}

/// Of the ring's own.
fn descriptors(request: &Submit) -> usize {
    let direct = request.table_after.map(|before| usize::from(before) + 1);
    direct.unwrap_or(request.elements.len())
}
