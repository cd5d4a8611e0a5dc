//! Queues that nobody serves any more, though their backend is connected.
//!
//! A thread of a backend may end without a word to anybody; what is left is that its kicks
//! are not read. That can be seen from here, for the descriptor is shared. It tells only
//! where a request waits that is to end by itself and that nothing else comes of, and of
//! split rings, which show that: backends that poll never read a kick.

use std::time::Duration;

use super::frontend::{Frontend, Link};
use super::ring::Ring;
use super::stall::LONG;
use crate::virtio::{DeviceEvent, GuestMemory};

impl Frontend {
    /// It is time to look whether queues are served.
    pub(super) fn on_look(&mut self) -> DeviceEvent {
        self.looks.take();
        if !matches!(self.link, Link::Up(_)) || !self.profile.requests_end {
            return DeviceEvent::Nothing;
        }
        let memory = self.memory.guest();
        let rings = (0u16..).zip(&mut self.driver.rings);
        for (queue, ring) in rings.filter_map(|(n, ring)| Some((n, ring.as_mut()?))) {
            if ring.stall.look(is_waiting(ring, memory), ring.used(memory)) {
                let device = &self.options.id;
                tracing::warn!(
                    device,
                    queue,
                    "requests wait on queue {queue}, and for {LONG:?} the backend has neither \
                     read the kicks for it nor finished any: it takes long over one, or a \
                     thread of it has ended; its own log may say why"
                );
            }
        }
        DeviceEvent::Nothing
    }

    /// For how long requests have waited on a queue that nobody serves.
    pub(super) fn stalled(&self, queue: u16) -> Duration {
        let memory = self.memory.guest();
        let ring = self.driver.rings.get(usize::from(queue));
        let ring = ring.and_then(Option::as_ref);
        ring.filter(|ring| is_waiting(ring, memory))
            .map_or(Duration::ZERO, |ring| ring.stall.time(ring.used(memory)))
    }
}

fn is_waiting(ring: &Ring, memory: &GuestMemory) -> bool {
    ring.is_running() && ring.is_split() && ring.may_be_in_flight(memory) && ring.has_unread_kicks()
}
