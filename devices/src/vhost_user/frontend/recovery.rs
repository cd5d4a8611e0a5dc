//! The loss of a backend, and its return.
//!
//! The driver is not told of a loss that can be made good. It is told, by
//! NEEDS_RESET, when its requests cannot be resumed without loss or repetition,
//! when the backend that came back has not got what the driver relies on, and
//! when nobody waits for it.

use super::Frontend;
use super::offer::Offer;
use super::resume::{ResumePoint, resume_points, start_rings};
use super::stopping::Stop;
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::link::{Down, Event, Opened};
use crate::vhost_user::session::Session;
use crate::virtio::{DeviceEvent, features};

impl Frontend {
    /// What the link tells.
    pub(super) fn on_link(
        &mut self,
        event: Option<Event>,
        deadline: &Deadline,
    ) -> Result<DeviceEvent, Error> {
        match event {
            None => Ok(DeviceEvent::Nothing),
            Some(Event::Up(opened)) => self.on_up(*opened, deadline),
            Some(Event::Down(down)) => self.on_down(down).map_or(Ok(DeviceEvent::Nothing), Err),
        }
    }

    /// The connection is of no more use. An error is for the driver, as after
    /// [`on_down`](Self::on_down).
    pub(super) fn on_lost(&mut self, problem: Problem) -> Option<Error> {
        let down = self.link.lose(problem);
        self.on_down(down)
    }

    /// There is no backend. An error is for the driver, which then has to reset the device;
    /// without one the device resumes when a backend is back.
    pub(super) fn on_down(&mut self, down: Down) -> Option<Error> {
        for (_, ring) in self.driver.rings_mut() {
            ring.mark_lost(self.ram.guest());
        }
        let error = match down {
            Down::Lost { error, is_gone } if is_gone => {
                self.warnings.warn(
                    &error,
                    "the backend is gone; requests wait for it to come back",
                );
                return None;
            }
            Down::Rejected { error, is_passing } if is_passing || !self.driver.is_ready() => {
                self.warnings.warn(&error, "the backend is not back yet");
                return None;
            }
            Down::Lost { error, .. } | Down::Rejected { error, .. } | Down::GaveUp(error) => error,
        };
        self.driver.fail();
        Some(error)
    }

    /// Makes a backend this device's, and has it resume where the last one left.
    fn on_up(&mut self, opened: Opened, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let Opened {
            mut session,
            config,
        } = opened;
        self.offer = Offer::new(self.options.device_type, session.agreement());
        if !session.can_log() {
            self.ram.stop_log();
        }
        let has_changed = config != self.config;
        self.config = config;
        if let Err(problem) = self.resume(&mut session, deadline) {
            return self.fail_to_resume(session, problem);
        }
        let absent = self.link.keep(session);
        let features = features::names(self.options.device_type, self.offer.features());
        self.warnings.back(absent, &features);
        Ok(if has_changed {
            DeviceEvent::ConfigChanged
        } else {
            DeviceEvent::Nothing
        })
    }

    /// Resuming has failed: the driver has to reset the device, unless the
    /// backend has only died again. A backend that is in step is kept, and
    /// serves the driver after its reset.
    fn fail_to_resume(&mut self, session: Session, problem: Problem) -> Result<DeviceEvent, Error> {
        if problem.ends_connection() {
            let down = self.link.abandon(session, problem);
            return self.on_down(down).map_or(Ok(DeviceEvent::Nothing), Err);
        }
        self.link.keep(session);
        self.driver.fail();
        Err(self.link.error(problem))
    }

    /// Hands over all that the driver has set up.
    fn resume(&mut self, session: &mut Session, deadline: &Deadline) -> Result<(), Problem> {
        let Some(features) = self.driver.features() else {
            return Ok(());
        };
        self.offer.check_features(features)?;
        self.offer.check_memory_slots(self.ram.table().count())?;
        self.check_shared_memory(session)?;
        // Rings that cannot resume must be found before the backend is told anything.
        if !session.can_track() {
            self.driver.track_in(None);
        }
        let points = self.resume_points()?;
        session.activate(features, self.ram.table(), deadline)?;
        if let Some(log) = self.ram.log() {
            session.log(Some(log), features, deadline)?;
        }
        self.resume_tracking(session, deadline)?;
        if let Some(state) = self.driver.saved_state() {
            session.load_state(state, deadline)?;
        }
        if !self.is_paused {
            start_rings(session, &mut self.driver, points, deadline)?;
        }
        self.driver.save_state(None);
        Ok(())
    }

    fn resume_tracking(
        &mut self,
        session: &mut Session,
        deadline: &Deadline,
    ) -> Result<(), Problem> {
        if self.driver.inflight().is_none() {
            let (queues, size) = self.tracked();
            let region = session.new_region(queues, size, deadline)?;
            self.driver.track_in(region);
        }
        if let Some(region) = self.driver.inflight() {
            session.set_region(region, deadline)?;
        }
        Ok(())
    }

    /// Where each started ring resumes.
    pub(super) fn resume_points(&self) -> Result<Vec<ResumePoint>, Problem> {
        let device_type = self.options.device_type;
        resume_points(
            &self.driver,
            &self.ram,
            &self.offer,
            &self.profile,
            device_type,
        )
    }

    /// The regions that the driver has been told of, as long as they are the backend's.
    fn check_shared_memory(&self, session: &Session) -> Result<(), Problem> {
        let given = self.shared_memory().iter();
        let given = given.map(|region| (region.id, region.len));
        if session.shared_memory().eq(given) {
            return Ok(());
        }
        Err(Problem::SharedMemoryChanged)
    }

    /// Has another process take the backend's place. One that answers stops its
    /// rings first, so that nothing is in flight whatever the device type.
    pub(crate) fn replace(&mut self) -> Result<DeviceEvent, Error> {
        if !self.link.is_supervised() {
            return Err(self.link.error(Problem::NotSupervised));
        }
        let stopped = self.stop_for_successor();
        let down = self.link.replace(stopped);
        Ok(self.after(down))
    }

    /// Lets the backend go, as for another one to take its place, and looks for none until
    /// [`reconnect`](Self::reconnect).
    pub(crate) fn disconnect(&mut self) -> Result<DeviceEvent, Error> {
        if !self.link.is_up() {
            return Err(self.link.error(Problem::Away));
        }
        let stopped = self.stop_for_successor();
        let down = self.link.let_go(stopped);
        Ok(self.after(down))
    }

    /// Looks for a backend again after [`disconnect`](Self::disconnect).
    pub(crate) fn reconnect(&mut self) -> Result<(), Error> {
        let looking = self.link.connect();
        looking.map_err(|problem| self.link.error(problem))
    }

    /// What the transport has to know of the loss of a backend.
    fn after(&mut self, down: Down) -> DeviceEvent {
        match self.on_down(down) {
            Some(error) => DeviceEvent::Broken(Box::new(error)),
            None => DeviceEvent::Nothing,
        }
    }

    /// Stops all rings in order, and has the backend save its own state.
    fn stop_for_successor(&mut self) -> Result<(), Problem> {
        let deadline = Deadline::after(self.options.deadline);
        self.stop_all(Stop::Replaced, &deadline)?;
        if let Some(session) = self.link.session()
            && self.driver.is_ready()
        {
            let state = session.save_state(&deadline)?;
            self.driver.save_state(state);
        }
        Ok(())
    }
}
