//! Errors that a backend reports on rings: each becomes a warning and a count.

use super::{Frontend, Link};
use crate::vhost_user::error::Error;
use crate::virtio::DeviceEvent;

impl Frontend {
    /// The backend reports errors. The device keeps working.
    pub(super) fn on_ring_errors(&mut self) -> Result<DeviceEvent, Error> {
        let queues = match &self.link {
            Link::Up(session) => session.take_ring_errors(),
            Link::Away(_) | Link::GivenUp => Vec::new(),
        };
        for queue in queues {
            if let Some(Some(ring)) = self.driver.rings.get_mut(usize::from(queue)) {
                ring.errors += 1;
            }
            self.warn_of_ring(queue);
        }
        Ok(DeviceEvent::Nothing)
    }

    fn warn_of_ring(&mut self, queue: u16) {
        let Some(suppressed) = self.ring_log.admit() else {
            return;
        };
        let device = &self.options.id;
        tracing::warn!(
            device,
            queue,
            suppressed,
            "the backend reports an error on queue {queue}: it has met something there that it \
             cannot process, as a ring that the driver has broken; its own log may say what, \
             and in gdb `monitor vq {device} {queue}` shows the ring"
        );
    }
}
