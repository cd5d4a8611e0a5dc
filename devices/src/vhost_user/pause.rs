//! Rings that are stopped in order: for a pause, or before another process takes the backend's
//! place.

use std::thread;
use std::time::Duration;

use super::deadline::Deadline;
use super::error::Problem;
use super::frontend::{Frontend, Link};
use super::recovery::start_rings;
use super::ring::Ring;
use super::session::Session;
use crate::virtio::{DeviceEvent, GuestMemory};

/// Between looks at a ring that is being finished: who finishes it signals the
/// driver, not the frontend.
const DRAIN_RETRY: Duration = Duration::from_millis(1);
/// How long requests are waited for that the driver does not wait for.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// Rings on which nothing is used for so long are at rest.
const REST: Duration = Duration::from_millis(20);

impl Frontend {
    /// Stops all rings in order. The same backend goes on with [`Frontend::go_on`].
    pub(super) fn stand_still(&mut self) -> DeviceEvent {
        self.is_paused = true;
        let stopped = self.stop_rings();
        self.unless(stopped)
    }

    /// Has the backend go on with the rings that [`Frontend::stand_still`] stopped: the same
    /// one, or one that has come back since.
    pub(super) fn go_on(&mut self) -> DeviceEvent {
        self.is_paused = false;
        let started = self.restart_rings();
        self.unless(started)
    }

    /// The driver hears of what was not done when its rings are lost over it.
    pub(super) fn unless(&mut self, done: Result<(), Problem>) -> DeviceEvent {
        match done.err().and_then(|problem| self.lose(problem)) {
            Some(error) => DeviceEvent::Broken(Box::new(error)),
            None => DeviceEvent::Nothing,
        }
    }

    /// Waits a while for the requests of a ring that the driver takes away. QEMU's
    /// storage daemon and backends on rust-vmm's crate stop at once, while other threads
    /// of theirs go on, and would write into memory that the driver has long used for
    /// something else.
    pub(super) fn let_finish(&mut self, ring: &Ring) {
        ring.hold_kicks();
        if self.driver.inflight.is_some() {
            return;
        }
        let Link::Up(session) = &mut self.link else {
            return;
        };
        let memory = self.memory.guest();
        let patience = Deadline::after(LAST_REQUESTS.min(self.options.deadline / 2));
        if ring.is_split()
            && self.profile.requests_end
            && !ring.has_used_up_to(ring.available(memory), memory)
        {
            finish(session, &[ring], memory, &patience);
        }
        wait_until_read(session, &[ring]);
    }

    fn restart_rings(&mut self) -> Result<(), Problem> {
        let mut rings = self.driver.rings.iter().flatten();
        if rings.any(Ring::is_running) || self.driver.features.is_none() {
            return Ok(());
        }
        let places = self.places()?;
        let deadline = Deadline::after(self.options.deadline);
        match &mut self.link {
            Link::Up(session) => start_rings(session, &mut self.driver.rings, places, &deadline),
            _ => Ok(()),
        }
    }

    pub(super) fn stop_rings(&mut self) -> Result<(), Problem> {
        let Link::Up(session) = &mut self.link else {
            return Ok(());
        };
        let memory = self.memory.guest();
        let is_tracked = self.driver.inflight.is_some();
        let running = (0..)
            .zip(&mut self.driver.rings)
            .filter_map(|(index, ring)| Some((index, ring.as_mut()?)));
        let mut running: Vec<(u16, &mut Ring)> =
            running.filter(|(_, ring)| ring.is_running()).collect();
        for (_, ring) in &running {
            ring.hold_kicks();
        }
        if !is_tracked {
            // What would be known anyway is not waited for, and only a split ring shows
            // that it is at rest.
            let in_order = self.profile.in_order;
            let unknown = running
                .iter()
                .filter(|(index, ring)| !in_order.includes(*index) && ring.is_split());
            let unknown: Vec<_> = unknown.map(|(_, ring)| &**ring).collect();
            let patience = Deadline::after(self.options.deadline / 2);
            finish(session, &unknown, memory, &patience);
            let all: Vec<_> = running.iter().map(|(_, ring)| &**ring).collect();
            wait_until_read(session, &all);
        }
        let deadline = Deadline::after(self.options.deadline);
        for (asked, ring) in &mut running {
            let asked = *asked;
            let base = session.stop_ring(asked, &deadline)?;
            let found = base.index;
            if found != u32::from(asked) {
                return Err(Problem::WrongQueue { asked, found });
            }
            ring.mark_stopped(base.num, memory);
        }
        Ok(())
    }
}

/// Waits until the backend has finished what it has taken from the rings, as far as it
/// does within `patience`. Kicks are held, but it may find more by itself.
///
/// A backend is to finish a ring when it is told to stop it. QEMU's storage daemon
/// answers at once, and gives up when it then has something to signal.
fn finish(session: &mut Session, rings: &[&Ring], memory: &GuestMemory, patience: &Deadline) {
    let goal = |ring: &&Ring| ring.available(memory);
    let goals: Vec<_> = rings.iter().map(goal).collect();
    // What the driver had put in before its kick was held.
    for ring in rings {
        ring.remind();
    }
    let all_used = || {
        let mut rings = rings.iter().zip(&goals);
        rings.all(|(ring, goal)| ring.has_used_up_to(*goal, memory))
    };
    while !all_used() && patience.left().is_some() {
        thread::sleep(DRAIN_RETRY);
        session.serve_meanwhile();
    }
    let used = || -> Vec<u16> { rings.iter().map(|ring| ring.used(memory)).collect() };
    let mut before = used();
    while !rings.is_empty() && patience.left().is_some() {
        thread::sleep(REST);
        session.serve_meanwhile();
        let now = used();
        if now == before {
            break;
        }
        before = now;
    }
}

/// Waits a little until the backend has read the kicks that have reached it. A thread
/// that finds its ring stopped when it does may take that for an error.
fn wait_until_read(session: &mut Session, rings: &[&Ring]) {
    let patience = Deadline::after(REST);
    while rings.iter().any(|ring| ring.has_unread_kicks()) && patience.left().is_some() {
        thread::sleep(DRAIN_RETRY);
        session.serve_meanwhile();
    }
}
