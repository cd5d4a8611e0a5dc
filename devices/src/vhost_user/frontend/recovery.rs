//! The loss of a backend, and its return.
//!
//! The driver is not told of a loss that can be made good. It is told, by
//! NEEDS_RESET, when its requests cannot be resumed without loss or repetition,
//! when the backend that came back has not got what the driver relies on, and
//! when nobody waits for it.

use std::io;

use host_io::errors::chain;
use vhost::vhost_user::message::VhostUserVringAddr;

use super::ring::{CannotResume, Evidence, Ring};
use super::stopping::Stop;
use super::{Frontend, Link, watch_beside};
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::events::Source;
use crate::vhost_user::session::channel::Channel;
use crate::vhost_user::session::negotiate;
use crate::vhost_user::session::{RingSetup, Session};
use crate::virtio::{DeviceEvent, features};

impl Frontend {
    /// The connection is of no more use. An error is for the driver, which then
    /// has to reset the device; without one the device resumes when a backend is
    /// back.
    pub(super) fn on_lost(&mut self, problem: Problem) -> Option<Error> {
        // A backend that is out of step or late may still be at work.
        let is_gone = problem.is_closed() || self.connector.kill();
        self.disconnect(problem, is_gone)
    }

    /// The link is cut. `is_gone` says that the backend does nothing any more.
    fn disconnect(&mut self, problem: Problem, is_gone: bool) -> Option<Error> {
        let waits = self.reconnect_timer.is_on() || matches!(problem, Problem::Replaced);
        // Dropping what was there closes the sockets.
        self.link = if waits {
            Link::Away(None)
        } else {
            Link::GivenUp
        };
        if waits {
            if let Err(error) = self.reconnect_timer.arm() {
                return Some(self.give_up(Problem::Events(error)));
            }
            for ring in self.driver.rings.iter_mut().flatten() {
                ring.mark_lost(self.memory.guest());
            }
        }
        let error = self.error(problem);
        self.backend_status.away(chain(&error));
        if is_gone && waits {
            self.warn(
                &error,
                "the backend is gone; requests wait for it to come back",
            );
            return None;
        }
        self.driver.fail();
        Some(error)
    }

    /// Nobody waits for the backend any more.
    fn give_up(&mut self, problem: Problem) -> Error {
        self.link = Link::GivenUp;
        self.reconnect_timer.disarm();
        self.driver.fail();
        let error = self.error(problem);
        self.backend_status.away(chain(&error));
        error
    }

    /// Has another process take the backend's place. One that answers stops its
    /// rings first, so that nothing is in flight whatever the device type.
    pub(crate) fn replace(&mut self) -> Result<DeviceEvent, Error> {
        if !self.connector.is_supervisor() {
            return Err(self.error(Problem::NotSupervised));
        }
        let drained = self.drain();
        self.reconnect_timer.restart();
        let error = match drained {
            Ok(()) => {
                self.connector.replace();
                self.disconnect(Problem::Replaced, true)
            }
            Err(problem) => self.on_lost(problem),
        };
        Ok(error.map_or(DeviceEvent::Nothing, |error| {
            DeviceEvent::Broken(Box::new(error))
        }))
    }

    /// Stops all rings in order, and has the backend save its own state.
    fn drain(&mut self) -> Result<(), Problem> {
        let deadline = Deadline::after(self.options.deadline);
        self.stop_all(Stop::Replaced, &deadline)?;
        if let Link::Up(session) = &mut self.link
            && self.driver.features.is_some()
        {
            self.driver.state = session.save_state(&deadline)?;
        }
        Ok(())
    }

    /// The connection is readable: the backend is gone or out of step, or, when
    /// it was away, has given its first sign of life.
    pub(super) fn on_backend(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let problem = match &mut self.link {
            Link::Up(session) => match session.check() {
                Ok(()) => return Ok(DeviceEvent::Nothing),
                Err(problem) => problem,
            },
            Link::Away(asked) => match asked.take() {
                Some(channel) => return self.finish_handshake(channel, deadline),
                None => return Ok(DeviceEvent::Nothing),
            },
            Link::GivenUp => return Ok(DeviceEvent::Nothing),
        };
        self.on_lost(problem).map_or(Ok(DeviceEvent::Nothing), Err)
    }

    /// The backend has requests of its own. When it misbehaves there it is not
    /// listened to any more; its queues may be sound.
    pub(super) fn on_requests(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let Link::Up(session) = &mut self.link else {
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
            return self.on_backend(deadline);
        }
        if let Some(suppressed) = self.log.admit() {
            let device = &self.options.id;
            let error: &dyn std::error::Error = &error;
            tracing::warn!(device, suppressed, error, "the backend's own requests end");
        }
        Ok(DeviceEvent::Nothing)
    }

    /// The configuration is another, or the device needs a reset, which a device tells in
    /// the same way.
    fn on_change(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        match self.exchange(|session| session.needs_reset(deadline))? {
            Some(true) => Err(self.error(Problem::NeedsReset)),
            _ => Ok(DeviceEvent::ConfigChanged),
        }
    }

    /// It is time for the next attempt, or too late for the last one.
    pub(super) fn on_timer(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        if !matches!(self.link, Link::Away(_)) {
            self.reconnect_timer.disarm();
            return Ok(DeviceEvent::Nothing);
        }
        self.link = Link::Away(None);
        if self.reconnect_timer.is_over() {
            let waited = self.reconnect_timer.absent();
            return Err(self.give_up(Problem::NotBack { waited }));
        }
        self.try_connect(deadline)
    }

    /// A backend has connected. Looked at only when there is none and none is
    /// being asked: the others wait in the kernel's queue.
    pub(super) fn on_arrival(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        match self.link {
            Link::Away(None) => self.try_connect(deadline),
            _ => Ok(DeviceEvent::Nothing),
        }
    }

    /// Looks for a backend once.
    fn try_connect(&mut self, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let armed = match self.start_handshake(deadline) {
            Ok(channel) => {
                self.link = Link::Away(Some(channel));
                self.reconnect_timer.arm_after(self.options.deadline)
            }
            Err(problem) => {
                let problem = self.explain(problem);
                tracing::debug!(device = self.options.id, %problem, "the backend is not back yet");
                if !problem.may_pass() {
                    self.backend_status.failed(chain(&problem));
                }
                self.wait_for_another(problem.may_pass())
            }
        };
        match armed {
            Ok(()) => Ok(DeviceEvent::Nothing),
            Err(error) => Err(self.give_up(Problem::Events(error))),
        }
    }

    /// Waits to look again: until one connects, where that can be waited for.
    /// One that connects and does not last is only looked for after a pause.
    fn wait_for_another(&mut self, nobody_came: bool) -> io::Result<()> {
        match self.connector.arrivals() {
            Some(fd) if nobody_came => {
                self.events.watch_once(&fd, Source::Arrival)?;
                self.reconnect_timer.arm_at_limit()
            }
            _ => self.reconnect_timer.arm().map(drop),
        }
    }

    /// Connects and asks the first question, without waiting for an answer.
    fn start_handshake(&mut self, deadline: &Deadline) -> Result<Channel, Problem> {
        let stream = self.connector.connect()?;
        let mut channel = Channel::new(stream);
        negotiate::start_handshake(&mut channel, deadline)?;
        let watched = self.events.watch(&channel, Source::Backend);
        watched.map_err(Problem::Events)?;
        Ok(channel)
    }

    /// A backend has answered the first question: makes it this device's, and has it
    /// resume where the last one left.
    fn finish_handshake(
        &mut self,
        channel: Channel,
        deadline: &Deadline,
    ) -> Result<DeviceEvent, Error> {
        let memory = self.shared_memory.as_ref();
        if let Some(memory) = memory {
            memory.inherit();
        }
        let opened = Session::open(channel, &self.options, &self.profile, memory, deadline);
        let (mut session, config) = match opened {
            Ok(opened) => opened,
            Err(problem) => return self.reject(problem, deadline),
        };
        if let Err(problem) = watch_beside(&self.events, &mut session) {
            return self.reject(problem, deadline);
        }
        self.features = session.agreement().features;
        self.backend_queues = session.agreement().queues;
        self.memory_slots = session.agreement().memory_slots;
        if !session.can_log() {
            self.page_log = None;
        }
        let has_changed = config != self.config;
        self.config = config;
        let resumed = self.resume(&mut session, deadline);
        if let Err(problem) = resumed {
            return self.fail_to_resume(session, problem);
        }
        self.link = Link::Up(session);
        self.backend_status.connected();
        let absent = self.reconnect_timer.absent();
        self.reconnect_timer.end();
        if let Some(suppressed) = self.log.admit() {
            let device = &self.options.id;
            let features = features::names(self.options.device_type, self.features).join(", ");
            tracing::warn!(device, ?absent, features, suppressed, "the backend is back");
        }
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
            // A backend that hangs over the driver's setup would do so for ever.
            let is_gone = problem.is_closed();
            if !is_gone {
                self.connector.kill();
            }
            let parted = self.disconnect(problem, is_gone);
            return parted.map_or(Ok(DeviceEvent::Nothing), Err);
        }
        self.link = Link::Up(session);
        self.backend_status.connected();
        self.reconnect_timer.end();
        self.driver.fail();
        Err(self.error(problem))
    }

    /// The process that answered did not become this device's backend. Perhaps
    /// the next one does; but if it is of the wrong kind the driver hears of it.
    fn reject(&mut self, problem: Problem, deadline: &Deadline) -> Result<DeviceEvent, Error> {
        let left = deadline.left().unwrap_or_default();
        let spent = deadline.budget().saturating_sub(left);
        // A backend that is slow must not take all of this thread's time.
        let armed = self
            .reconnect_timer
            .arm()
            .and_then(|pause| self.reconnect_timer.arm_after(pause.max(2 * spent)));
        if let Err(error) = armed {
            return Err(self.give_up(Problem::Events(error)));
        }
        let is_passing = problem.ends_connection();
        let problem = self.explain(problem);
        let error = self.error(problem);
        self.backend_status.failed(chain(&error));
        if is_passing || self.driver.features.is_none() {
            self.warn(&error, "the backend is not back yet");
            return Ok(DeviceEvent::Nothing);
        }
        self.driver.fail();
        Err(error)
    }

    /// Why a backend that never served is gone.
    fn explain(&mut self, problem: Problem) -> Problem {
        if !problem.is_closed() {
            return problem;
        }
        self.connector.exit_report().unwrap_or(problem)
    }

    /// Hands over all that the driver has set up.
    fn resume(&mut self, session: &mut Session, deadline: &Deadline) -> Result<(), Problem> {
        let Some(features) = self.driver.features else {
            return Ok(());
        };
        self.check_features(features)?;
        self.check_memory_slots()?;
        self.check_shared_memory(session)?;
        // Rings that cannot resume must be found before the backend is told anything.
        if !session.can_track() {
            self.driver.inflight = None;
        }
        let resume_points = self.resume_points()?;
        session.activate(features, &self.memory, deadline)?;
        if let Some(log) = &self.page_log {
            session.log(Some(log), features, deadline)?;
        }
        self.resume_tracking(session, deadline)?;
        if let Some(state) = &self.driver.state {
            session.load_state(state, deadline)?;
        }
        if !self.is_paused {
            start_rings(session, &mut self.driver.rings, resume_points, deadline)?;
        }
        self.driver.state = None;
        Ok(())
    }

    fn resume_tracking(
        &mut self,
        session: &mut Session,
        deadline: &Deadline,
    ) -> Result<(), Problem> {
        if self.driver.inflight.is_none() {
            let (queues, size) = self.tracked();
            self.driver.inflight = session.new_region(queues, size, deadline)?;
        }
        if let Some(region) = &self.driver.inflight {
            session.set_region(region, deadline)?;
        }
        Ok(())
    }

    /// Where each started ring is, and where it resumes.
    pub(super) fn resume_points(&self) -> Result<Vec<ResumePoint>, Problem> {
        let device_type = self.options.device_type;
        let point = |(queue, ring): (u16, &Option<Ring>)| {
            let Some(ring) = ring else {
                return Ok(None);
            };
            self.check_queue(queue)?;
            let base = ring.base(self.evidence(queue), self.memory.guest());
            let base = base.map_err(|unknown| match unknown {
                CannotResume::InFlight => Problem::InFlight { queue, device_type },
                CannotResume::Position => Problem::PositionLost { queue },
            })?;
            Ok(Some((self.ring_addresses(queue, &ring.queue)?, base)))
        };
        (0..).zip(&self.driver.rings).map(point).collect()
    }

    /// The evidence of a queue's requests in flight, other than its rings.
    fn evidence(&self, queue: u16) -> Evidence {
        if self.driver.inflight.is_some() {
            Evidence::Inflight
        } else if self.profile.in_order.includes(queue) {
            Evidence::InOrder
        } else {
            Evidence::None
        }
    }

    pub(super) fn warn(&mut self, error: &Error, what: &str) {
        if let Some(suppressed) = self.log.admit() {
            let device = &self.options.id;
            let error: &dyn std::error::Error = error;
            tracing::warn!(device, suppressed, error, "{what}");
        }
    }
}

/// Where a ring is and where it resumes, if the driver has started it.
type ResumePoint = Option<(VhostUserVringAddr, u32)>;

pub(super) fn start_rings(
    session: &mut Session,
    rings: &mut [Option<Ring>],
    resume_points: Vec<ResumePoint>,
    deadline: &Deadline,
) -> Result<(), Problem> {
    for (ring, point) in rings.iter_mut().zip(resume_points) {
        let (Some(ring), Some((addresses, base))) = (ring, point) else {
            continue;
        };
        ring.mark_running(base);
        let setup = ring_setup(ring, addresses, base)?;
        session.start_ring(&setup, deadline)?;
        ring.signal();
    }
    Ok(session.begin(deadline)?)
}

/// The setup that a backend has to know of a ring that it starts.
pub(super) fn ring_setup(
    ring: &mut Ring,
    addresses: VhostUserVringAddr,
    base: u32,
) -> Result<RingSetup, Problem> {
    // There are no more queues than a u16 counts.
    let queue = addresses.index as u16;
    let failed = |source| Problem::EventFd { queue, source };
    Ok(RingSetup {
        addresses,
        size: ring.queue.size,
        base,
        kick: ring.connect().map_err(failed)?,
        call: ring.call.try_clone().map_err(failed)?,
    })
}
