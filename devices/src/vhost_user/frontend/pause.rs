//! A pause of all rings, and its end.

use super::Frontend;
use super::resume::start_rings;
use super::stopping::Stop;
use crate::deadline::Deadline;
use crate::vhost_user::error::Problem;
use crate::virtio::DeviceEvent;

impl Frontend {
    /// Stops all rings in order, until [`Frontend::resume_rings`].
    pub(crate) fn pause_rings(&mut self) -> DeviceEvent {
        self.is_paused = true;
        let deadline = Deadline::after(self.options.deadline);
        let stopped = self.stop_all(Stop::Paused, &deadline);
        self.unless(stopped)
    }

    /// Has the backend resume the rings that [`Frontend::pause_rings`] stopped: the same
    /// one, or one that has come back since.
    pub(crate) fn resume_rings(&mut self) -> DeviceEvent {
        self.is_paused = false;
        let started = self.restart_rings();
        self.unless(started)
    }

    /// Tells the driver of a failure if its rings are lost with it.
    pub(super) fn unless(&mut self, done: Result<(), Problem>) -> DeviceEvent {
        match done.err().and_then(|problem| self.on_lost(problem)) {
            Some(error) => DeviceEvent::Broken(Box::new(error)),
            None => DeviceEvent::Nothing,
        }
    }

    fn restart_rings(&mut self) -> Result<(), Problem> {
        let is_running = self.driver.rings().any(|(_, ring)| ring.is_running());
        if is_running || !self.driver.is_ready() {
            return Ok(());
        }
        let points = self.resume_points()?;
        let deadline = Deadline::after(self.options.deadline);
        match self.link.session() {
            Some(session) => start_rings(session, &mut self.driver, points, &deadline),
            None => Ok(()),
        }
    }
}
