//! What a backend tells by itself: its own requests, and errors on rings.

use super::Frontend;
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::virtio::DeviceEvent;

impl Frontend {
    /// The backend has requests of its own. When it misbehaves there it is not
    /// listened to any more; its queues may be sound.
    pub(super) fn on_requests(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let Some(session) = self.link.session() else {
            return Ok(DeviceEvent::Nothing);
        };
        let Some(requests) = session.requests() else {
            return Ok(DeviceEvent::Nothing);
        };
        let error = match requests.serve() {
            Ok(asked) if asked.config_changed => return self.on_change(deadline),
            Ok(_) => return Ok(DeviceEvent::Nothing),
            Err(error) => error,
        };
        *session.requests() = None;
        if error.is_closed() {
            // A backend that dies closes both sockets.
            let event = self.link.on_readable(deadline);
            return self.on_link(event, deadline);
        }
        self.warnings.warn(&error, "the backend's own requests end");
        Ok(DeviceEvent::Nothing)
    }

    /// The configuration is another, or the device needs a reset, which a device tells in
    /// the same way.
    fn on_change(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        match self.exchange(|session| session.needs_reset(deadline))? {
            Some(true) => Err(self.link.error(Problem::NeedsReset)),
            _ => Ok(DeviceEvent::ConfigChanged),
        }
    }

    /// The backend reports errors: each becomes a warning and a count.
    ///
    /// A backend with a status says there whether the device needs a reset; for one without,
    /// this signal is the only way to say that it cannot process a queue any more.
    pub(super) fn on_ring_errors(&mut self) -> Result<DeviceEvent, Error> {
        let Some(session) = self.link.session() else {
            return Ok(DeviceEvent::Nothing);
        };
        let (queues, has_status) = (session.take_ring_errors(), session.has_status());
        let mut broken = None;
        for queue in queues {
            // One that the driver has taken away is of no concern any more.
            if let Some(ring) = self.driver.ring_mut(queue) {
                ring.count_error();
                broken = Some(queue);
            }
            self.warnings.ring_error(queue);
        }
        match broken {
            Some(queue) if !has_status => Err(self.link.error(Problem::RingBroken { queue })),
            _ => Ok(DeviceEvent::Nothing),
        }
    }
}
