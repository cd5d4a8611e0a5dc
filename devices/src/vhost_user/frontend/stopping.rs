//! Stopping rings in order, with nothing in flight as far as possible.
//!
//! A backend has to finish the requests that it has taken from a ring before it says that the ring
//! has stopped, which takes as long as the requests do. So that this is not mistaken for silence, a
//! ping first checks that the backend talks at all. Some backends say at once that they have
//! stopped. QEMU's storage daemon then gives up when it has something to signal. With rust-vmm's
//! crate, other threads still work then and would write into memory that the driver has long used
//! for something else. So the requests of backends that keep no record are waited for first, as far
//! as the rings show them.

use std::thread;
use std::time::{Duration, Instant};

use super::Frontend;
use super::ring::Ring;
use crate::deadline::Deadline;
use crate::vhost_user::Options;
use crate::vhost_user::error::Problem;
use crate::vhost_user::profile::Profile;
use crate::vhost_user::session::Session;
use crate::virtio::GuestMemory;

/// Between looks at a ring that is being finished: the backend signals the
/// driver, not the frontend.
const RETRY: Duration = Duration::from_millis(1);
/// How long requests are waited for that the driver does not wait for.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Rings on which nothing is used for so long are at rest.
const REST: Duration = Duration::from_millis(20);
/// Between log lines about one wait.
const LOG: Duration = Duration::from_secs(5);

/// Why rings are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The driver takes them away.
    TakenAway,
    /// They are paused until the same backend resumes them.
    Paused,
    /// Another process replaces their backend.
    Replaced,
}

impl Frontend {
    /// Stops all rings that run. They stay the driver's.
    pub(super) fn stop_all(&mut self, stop: Stop, deadline: &Deadline) -> Result<(), Problem> {
        let all: Vec<u16> = self.driver.rings().map(|(index, _)| index).collect();
        let take = |index| Some((index, self.driver.take_ring(index)?));
        let mut rings: Vec<_> = all.into_iter().filter_map(take).collect();
        let stopped = self.stop_rings(&mut rings, stop, deadline);
        for (index, ring) in rings {
            self.driver.put_ring(index, ring);
        }
        stopped
    }

    /// Stops those of these rings that run.
    pub(super) fn stop_rings(
        &mut self,
        rings: &mut [(u16, Ring)],
        stop: Stop,
        deadline: &Deadline,
    ) -> Result<(), Problem> {
        let rings = rings.iter_mut().map(|(index, ring)| (*index, ring));
        let mut running: Vec<_> = rings.filter(|(_, ring)| ring.is_running()).collect();
        let Some(session) = self.link.session() else {
            return Ok(());
        };
        let stopping = Stopping {
            stop,
            options: &self.options,
            profile: &self.profile,
            memory: self.ram.guest(),
            is_tracked: self.driver.inflight().is_some(),
        };
        stopping.run(session, &mut running, deadline)
    }
}

/// Rings by number.
type Running<'a> = (u16, &'a mut Ring);

/// All that is needed to stop rings.
struct Stopping<'a> {
    stop: Stop,
    options: &'a Options,
    profile: &'a Profile,
    memory: &'a GuestMemory,
    /// The backend keeps a record of its requests.
    is_tracked: bool,
}

impl Stopping<'_> {
    fn run(
        &self,
        session: &mut Session,
        rings: &mut [Running<'_>],
        deadline: &Deadline,
    ) -> Result<(), Problem> {
        for (_, ring) in rings.iter() {
            ring.hold_kicks();
        }
        if rings.iter().any(|(_, ring)| self.is_busy(ring)) {
            session.ping(deadline)?;
        }
        if !self.is_tracked {
            let shared = rings.iter().map(|(index, ring)| (*index, &**ring));
            let all: Vec<(u16, &Ring)> = shared.collect();
            deadline.suspended(|| self.finish(session, &all))?;
            wait_until_read(session, &all);
        }
        let drain = Deadline::after(self.options.drain_deadline);
        for (index, ring) in rings {
            self.stop_one(session, *index, ring, &drain, deadline)?;
        }
        Ok(())
    }

    /// Whether the backend may be at work on requests that end by themselves.
    fn is_busy(&self, ring: &Ring) -> bool {
        // The next backend has the record, whenever this one is killed.
        let is_needless = self.is_tracked && self.stop == Stop::Replaced;
        self.profile.requests_end && !is_needless && ring.may_be_in_flight(self.memory)
    }

    /// Whether requests of a backend that keeps no record are waited for. Where the
    /// position would be known anyway they are not, and only a split ring shows that it
    /// is at rest.
    fn is_waited_for(&self, index: u16, ring: &Ring) -> bool {
        ring.is_split()
            && match self.stop {
                Stop::TakenAway => self.is_busy(ring),
                Stop::Paused | Stop::Replaced => !self.profile.in_order.includes(index),
            }
    }

    fn patience(&self) -> Duration {
        let half = self.options.deadline / 2;
        match self.stop {
            // The driver may have broken its ring.
            Stop::TakenAway => LAST_REQUESTS.min(half),
            _ if self.profile.requests_end => self.options.drain_deadline,
            _ => half,
        }
    }

    /// Waits until the backend has finished the requests that it has taken from the rings,
    /// but no longer than [`patience`](Self::patience). Kicks are held, but it may find
    /// more by itself.
    fn finish(&self, session: &mut Session, all: &[(u16, &Ring)]) -> Result<(), Problem> {
        let waited = all.iter().filter(|(n, ring)| self.is_waited_for(*n, ring));
        // With the index up to which each is to be used.
        let waited: Vec<_> = waited
            .map(|(n, ring)| (*n, *ring, ring.available(self.memory)))
            .collect();
        // The driver may have added requests before its kick was held.
        for (_, ring, _) in &waited {
            ring.remind();
        }
        let patience = Deadline::after(self.patience());
        let mut log = Log::new();
        let behind = || {
            let mut waited = waited.iter();
            let is_behind = |(_, ring, goal): &&(_, &Ring, _)| {
                ring.is_plausible(self.memory) && !ring.has_used_up_to(*goal, self.memory)
            };
            waited.find(is_behind).map(|(index, _, _)| *index)
        };
        while let Some(queue) = behind()
            && patience.left().is_some()
        {
            thread::sleep(RETRY);
            session.serve_meanwhile();
            session.check()?;
            log.now_and_then(self.options, queue);
        }
        let used = || -> Vec<u16> {
            let rings = waited.iter();
            rings.map(|(_, ring, _)| ring.used(self.memory)).collect()
        };
        let mut before = used();
        while !waited.is_empty() && patience.left().is_some() {
            thread::sleep(REST);
            session.serve_meanwhile();
            let now = used();
            if now == before {
                break;
            }
            before = now;
        }
        Ok(())
    }

    fn stop_one(
        &self,
        session: &mut Session,
        asked: u16,
        ring: &mut Ring,
        drain: &Deadline,
        deadline: &Deadline,
    ) -> Result<(), Problem> {
        let mut log = Log::new();
        let waits = || log.now_and_then(self.options, asked);
        let base = match self.is_busy(ring) {
            true => deadline.suspended(|| session.stop_ring(asked, drain, waits))?,
            false => session.stop_ring(asked, deadline, waits)?,
        };
        session.disable_ring(asked, deadline)?;
        let found = base.index;
        if found != u32::from(asked) {
            return Err(Problem::WrongQueue { asked, found });
        }
        ring.mark_stopped(base.num, self.memory);
        Ok(())
    }
}

/// Waits a little until the backend has read the kicks that have reached it. A thread
/// that finds its ring stopped when it does may take that for an error.
fn wait_until_read(session: &mut Session, rings: &[(u16, &Ring)]) {
    let patience = Deadline::after(REST);
    let is_unread = || rings.iter().any(|(_, ring)| ring.has_unread_kicks());
    while is_unread() && patience.left().is_some() {
        thread::sleep(RETRY);
        session.serve_meanwhile();
    }
}

/// Says that a wait takes long.
struct Log {
    begun: Instant,
    last: Instant,
}

impl Log {
    fn new() -> Self {
        let begun = Instant::now();
        Self { begun, last: begun }
    }

    fn now_and_then(&mut self, options: &Options, queue: u16) {
        if self.last.elapsed() < LOG {
            return;
        }
        self.last = Instant::now();
        tracing::warn!(
            device = options.id,
            queue,
            "requests are in flight, and are waited for before the queue stops: for {:.0?} so \
             far, and {:.0?} at most",
            self.begun.elapsed(),
            options.drain_deadline,
        );
    }
}
