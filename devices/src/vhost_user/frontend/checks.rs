//! Periodic checks for faults of a backend that nobody reports: it has cut short a file
//! that is mapped into the guest, or it no longer serves a queue though it is connected.
//!
//! A thread of a backend may end without telling anybody. The only trace is that its kicks
//! are not read, which can be seen from here because the descriptor is shared. Backends
//! that poll never read a kick, so unread kicks count only while a request waits that
//! should end by itself and no other is finished. Only split rings show that.

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
        let memory = self.ram.guest();
        let ring = self.driver.ring(queue);
        ring.map_or(Duration::ZERO, |ring| ring.stalled(memory))
    }
}
