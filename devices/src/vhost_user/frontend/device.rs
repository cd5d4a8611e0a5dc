//! The frontend as a device: the calls of the transport and, behind it, of the driver.

use std::sync::Arc;
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::Frontend;
use super::driver::Driver;
use super::resume::ring_setup;
use super::ring::Ring;
use super::stopping::Stop;
use crate::deadline::Deadline;
use crate::vhost_user::error::{Error, Problem};
use crate::vhost_user::events::{Events, Source};
use crate::vhost_user::link::Event;
use crate::vhost_user::profile::ConfigWrites;
use crate::vhost_user::session::rings::RingSetup;
use crate::virtio::{
    DeviceError, DeviceEvent, DeviceType, Kick, QueueConfig, SharedRegion, features,
};

/// The state of a queue at its backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueHealth {
    /// How often the backend has reported an error since the driver started the queue.
    pub errors: u64,
    /// For how long requests have waited while the backend has finished none and left kicks
    /// unread, as one that waits for edges always does.
    pub stalled: Duration,
}

/// See [`Device`](crate::virtio::Device).
impl Frontend {
    pub(crate) fn device_type(&self) -> DeviceType {
        self.options.device_type
    }

    pub(crate) fn patience(&self) -> Duration {
        self.options.deadline
    }

    pub(crate) fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    pub(crate) fn features(&self) -> u64 {
        self.offer.features()
    }

    pub(crate) fn shared_memory(&self) -> &[SharedRegion] {
        let memory = self.shared_memory.as_ref();
        memory.map_or(&[], |memory| memory.regions())
    }

    pub(crate) fn activate(
        &mut self,
        features: u64,
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let needed = self.ram.table().count();
        self.offer
            .check_features(features)
            .and_then(|()| self.offer.check_memory_slots(needed))
            .map_err(|problem| self.link.error(problem))?;
        self.driver.take_features(features);
        let (memory, log) = (self.ram.table().clone(), self.ram.log().cloned());
        let (queues, size) = self.tracked();
        let region = self.exchange(|session| {
            session.activate(features, &memory, deadline)?;
            if let Some(log) = &log {
                session.log(Some(log), features, deadline)?;
            }
            let region = session.new_region(queues, size, deadline)?;
            if let Some(region) = &region {
                session.set_region(region, deadline)?;
            }
            Ok(region)
        })?;
        self.driver.track_in(region.flatten());
        tracing::debug!(
            device = self.options.id,
            features = features::names(self.options.device_type, features).join(", "),
            "the driver is ready"
        );
        Ok(())
    }

    pub(crate) fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &Arc<Kick>,
        call: &EventFd,
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let started = Ring::new(queue, kick, call)
            .map_err(|source| Problem::EventFd {
                queue: index,
                source,
            })
            .map_err(|problem| self.link.error(problem))
            .and_then(|ring| self.try_start(index, ring, deadline));
        if let Err(error) = started {
            // A backend that has refused a part of the setup may have begun with the rest.
            if let Err(error) = self.take_rings_away(&[index], deadline) {
                tracing::debug!(device = self.options.id, index, %error, "cannot stop it either");
            }
            return Err(error.into());
        }
        // A kick from before the ring was enabled may have been dropped.
        kick.signal();
        Ok(())
    }

    pub(crate) fn begin(&mut self, deadline: &Deadline) -> Result<(), DeviceError> {
        self.exchange(|session| session.begin(deadline))?;
        let interval = self.check_interval();
        self.checks.every(interval);
        Ok(())
    }

    pub(crate) fn stop_queues(
        &mut self,
        queues: &[u16],
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        Ok(self.take_rings_away(queues, deadline)?)
    }

    pub(crate) fn read_config(&mut self, deadline: &Deadline) -> Result<Vec<u8>, DeviceError> {
        let read = self.exchange(|session| session.read_config(deadline))?;
        if let Some(config) = read.flatten() {
            self.config = config;
        }
        let mut bytes = self.config.clone();
        if let Some(count) = &self.profile.queue_count {
            let queues = self.offer.queues().min(self.queue_sizes.len() as u16);
            count.limit(&mut bytes, self.offer.features(), queues);
        }
        Ok(bytes)
    }

    /// The driver can read the configuration space as it was read last. A backend may wait for
    /// that.
    pub(crate) fn config_published(&mut self) {
        if let Some(session) = self.link.session()
            && let Some(requests) = session.requests()
        {
            requests.config_published();
        }
    }

    pub(crate) fn write_config(
        &mut self,
        offset: u32,
        data: &[u8],
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        let written = match self.profile.config_writes {
            ConfigWrites::Settings if self.has_in_config(offset, data) => return Ok(()),
            ConfigWrites::Settings | ConfigWrites::Events => {
                self.exchange(|session| session.write_config(offset, data, deadline))
            }
            ConfigWrites::Questions => {
                let question = self.driver.ask(self.config.len(), offset, data);
                self.exchange(|session| session.write_config(0, &question, deadline))
            }
        }?;
        Ok(written.ok_or_else(|| self.link.error(Problem::Away))?)
    }

    pub(crate) fn reset(&mut self, deadline: &Deadline) {
        if self.driver.is_ready() {
            let reset = self.exchange(|session| session.reset(deadline));
            if let Err(error) = reset {
                self.warnings
                    .warn(&error, "cannot reset the device in order");
            }
        }
        self.checks.every(None);
        self.driver = Driver::new(self.queue_sizes.len());
        self.clear_shared_memory();
    }

    /// The queue's state at its backend.
    pub(crate) fn queue_health(&self, index: u16) -> QueueHealth {
        QueueHealth {
            errors: self.driver.ring(index).map_or(0, |ring| ring.errors()),
            stalled: self.stalled(index),
        }
    }

    /// Requests of the queue that the backend has taken, by its record of those in flight.
    pub(crate) fn taken(&self, index: u16) -> Option<u32> {
        let format = self.driver.ring(index)?.queue().format;
        self.driver.inflight()?.taken(index, format)
    }

    /// Readable when [`handle_event`](Self::handle_event) has something to do.
    pub(crate) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    pub(crate) fn handle_event(&mut self, deadline: &Deadline) -> DeviceEvent {
        let event = match self.events.ready() {
            Some(Source::Backend) => {
                let event = self.link.on_readable(deadline);
                self.on_link(event, deadline)
            }
            Some(Source::Requests) => self.on_requests(deadline),
            Some(Source::RingErrors) => self.on_ring_errors(),
            Some(Source::Timer) => {
                let down = self.link.on_timer(deadline);
                self.on_link(down.map(Event::Down), deadline)
            }
            Some(Source::Arrival) => {
                let down = self.link.on_arrival(deadline);
                self.on_link(down.map(Event::Down), deadline)
            }
            Some(Source::CutFiles) => self.on_cut_files(),
            Some(Source::Check) => Ok(self.on_check()),
            None => return DeviceEvent::Nothing,
        };
        event.unwrap_or_else(|error| DeviceEvent::Broken(Box::new(error)))
    }
}

impl Frontend {
    /// Whether the configuration space, as last read, has these bytes there.
    fn has_in_config(&self, offset: u32, data: &[u8]) -> bool {
        let there = self.config.get(offset as usize..);
        there.is_some_and(|there| there.starts_with(data))
    }

    fn clear_shared_memory(&mut self) {
        let cleared = self.shared_memory.as_ref().map(|memory| memory.clear());
        if let Some(Err(error)) = cleared {
            let error = self.link.error(Problem::SharedMemory(error));
            self.warnings
                .warn(&error, "the device keeps some of its shared memory");
        }
    }

    /// The backend has cut files short that the guest uses; the guest has read zeros there.
    /// The device loses its shared memory.
    fn on_cut_files(&mut self) -> Result<DeviceEvent, Error> {
        let memory = self.shared_memory.as_ref();
        // An error means that there is none.
        if memory.is_none_or(|memory| memory.cut().read().is_err()) {
            return Ok(DeviceEvent::Nothing);
        }
        self.clear_shared_memory();
        Err(self.link.error(Problem::CutFile))
    }

    /// Notes a ring that the driver starts, and returns what its backend has to know.
    fn note_ring(&mut self, index: u16, mut ring: Ring) -> Result<RingSetup, Problem> {
        let base = ring.initial_base();
        if self.link.is_up() {
            self.offer.check_queue(index)?;
            ring.mark_running(base);
        }
        let addresses = self.ram.ring_addresses(index, ring.queue())?;
        let setup = ring_setup(&mut ring, addresses, base)?;
        self.driver.put_ring(index, ring);
        Ok(setup)
    }

    fn try_start(&mut self, index: u16, ring: Ring, deadline: &Deadline) -> Result<(), Error> {
        let setup = self.note_ring(index, ring);
        let setup = setup.map_err(|problem| self.link.error(problem))?;
        self.exchange(|session| session.start_ring(&setup, deadline))?;
        Ok(())
    }

    /// The driver takes these queues away. An error is one for the driver.
    fn take_rings_away(&mut self, queues: &[u16], deadline: &Deadline) -> Result<(), Error> {
        let take = |&queue: &u16| Some((queue, self.driver.take_ring(queue)?));
        let mut rings: Vec<(u16, Ring)> = queues.iter().filter_map(take).collect();
        let stopped = self.stop_rings(&mut rings, Stop::TakenAway, deadline);
        for (index, ring) in &rings {
            self.empty_record(*index, ring);
        }
        match stopped {
            Ok(()) => Ok(()),
            Err(problem) => self.on_lost(problem).map_or(Ok(()), Err),
        }
    }

    /// What was in flight on a queue that the driver has taken away is in flight no more, for
    /// this backend and for those to come.
    fn empty_record(&self, queue: u16, ring: &Ring) {
        let Some(record) = self.driver.inflight() else {
            return;
        };
        if let Err(error) = record.empty(queue, ring.queue().format) {
            let device = &self.options.id;
            tracing::warn!(device, queue, %error, "cannot empty its record of requests in flight");
        }
    }
}
