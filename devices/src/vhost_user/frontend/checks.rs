//! Periodic checks for faults of a backend that nobody reports: it has cut short a file
//! that is mapped into the guest, or it no longer serves a queue though it is connected.
//!
//! A thread of a backend may end without telling anybody. What can be seen from here is that
//! requests wait which should end by themselves, and for how long none of them has been
//! finished, as the indices of split rings tell. A backend that has read the kicks is at work
//! on them. One that has not may poll, or wait for edges (`outboard-blk` does), and leaves
//! every kick unread: only of one that was seen to have read a kick does an unread one say
//! that it has not heard of it.

use std::time::Duration;

use super::Frontend;
use super::stall::LONG;
use crate::virtio::DeviceEvent;

/// Between checks.
const QUEUES: Duration = Duration::from_secs(5);
/// The same where files are mapped: one that is cut short may hold up a vCPU.
const FILES: Duration = Duration::from_secs(1);

impl Frontend {
    /// The interval of the checks while the driver uses the device.
    pub(super) fn check_interval(&self) -> Option<Duration> {
        let queues = self.profile.requests_end.then_some(QUEUES);
        self.shared_memory.as_ref().map(|_| FILES).or(queues)
    }

    /// It is time to check whether files are whole and queues are served.
    pub(super) fn on_check(&mut self) -> DeviceEvent {
        self.checks.take();
        if let Some(memory) = &self.shared_memory {
            memory.look_for_cuts();
        }
        if !self.link.is_up() || !self.profile.requests_end {
            return DeviceEvent::Nothing;
        }
        let memory = self.ram.guest();
        for (queue, ring) in self.driver.rings_mut() {
            if ring.check_stall(memory) {
                let device = &self.options.id;
                let omitted = match ring.reads_kicks() {
                    true => "neither read the kicks for it nor finished any",
                    false => "finished none of them",
                };
                tracing::warn!(
                    device,
                    queue,
                    "requests wait on queue {queue}, and for {LONG:?} the backend has {omitted}: \
                     it takes long over one, or a thread of it has ended; its own log may say why"
                );
            }
        }
        DeviceEvent::Nothing
    }

    /// For how long requests have waited on a queue without one being finished.
    pub(super) fn stalled(&self, queue: u16) -> Duration {
        let memory = self.ram.guest();
        let ring = self.driver.ring(queue);
        ring.map_or(Duration::ZERO, |ring| ring.stalled(memory))
    }
}
