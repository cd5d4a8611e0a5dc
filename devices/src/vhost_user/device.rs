//! What the transport has the frontend do, and the driver behind it.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::error::{Error, Problem};
use super::events::Source;
use super::frontend::{Driver, Frontend, Link};
use super::profile::ConfigWrites;
use super::recovery::ring_setup;
use super::ring::Ring;
use super::session::RingSetup;
use crate::virtio::{
    Device, DeviceError, DeviceEvent, DeviceType, Kick, Presence, QueueConfig, SharedRegion,
    features,
};

impl Device for Frontend {
    fn device_type(&self) -> DeviceType {
        self.options.device_type
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn shared_memory(&self) -> &[SharedRegion] {
        let memory = self.shared_memory.as_ref();
        memory.map_or(&[], |memory| memory.regions())
    }

    fn activate(&mut self, features: u64) -> Result<(), DeviceError> {
        self.check_features(features)
            .and_then(|()| self.check_memory_slots())
            .map_err(|problem| self.error(problem))?;
        self.driver.features = Some(features);
        let (memory, log) = (self.memory.clone(), self.page_log.clone());
        let (queues, size) = self.tracked();
        let region = self.exchange(|session, deadline| {
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
        self.driver.inflight = region.flatten();
        tracing::debug!(
            device = self.options.id,
            features = features::names(self.options.device_type, features).join(", "),
            "the driver is ready"
        );
        Ok(())
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &Arc<Kick>,
        call: &EventFd,
    ) -> Result<(), DeviceError> {
        if let Err(error) = self.try_start(index, queue, kick, call) {
            // A backend that has refused a part of it may have begun with the rest.
            let ring = self.ring_mut(index).and_then(Option::take);
            if ring.is_some_and(|ring| ring.is_running())
                && let Err(error) = self.try_stop(index)
            {
                tracing::debug!(device = self.options.id, index, %error, "cannot stop it either");
            }
            return Err(error.into());
        }
        // A kick from before the ring was enabled may have been dropped.
        kick.signal();
        Ok(())
    }

    fn begin(&mut self) -> Result<(), DeviceError> {
        self.exchange(|session, deadline| session.begin(deadline))?;
        Ok(())
    }

    fn stop_queue(&mut self, index: u16) -> Result<u32, DeviceError> {
        match self.ring_mut(index).and_then(Option::take) {
            Some(ring) if ring.is_running() => {
                self.let_finish(&ring);
                Ok(self.try_stop(index)?)
            }
            _ => Ok(0),
        }
    }

    fn read_config(&mut self) -> Result<Vec<u8>, DeviceError> {
        let read = self.exchange(|session, deadline| session.read_config(deadline))?;
        if let Some(config) = read.flatten() {
            self.config = config;
        }
        let mut bytes = self.config.clone();
        if let Some(count) = &self.profile.queue_count {
            let queues = self.backend_queues.min(self.queue_sizes.len() as u16);
            count.limit(&mut bytes, self.features, queues);
        }
        Ok(bytes)
    }

    fn write_config(&mut self, offset: u32, data: &[u8]) -> Result<(), DeviceError> {
        let written = match self.profile.config_writes {
            ConfigWrites::Settings if self.has_in_config(offset, data) => return Ok(()),
            ConfigWrites::Settings | ConfigWrites::Events => {
                self.exchange(|session, deadline| session.write_config(offset, data, deadline))
            }
            ConfigWrites::Questions => {
                let question = self.question_with(offset, data);
                self.exchange(|session, deadline| session.write_config(0, &question, deadline))
            }
        }?;
        Ok(written.ok_or_else(|| self.error(Problem::Away))?)
    }

    fn reset(&mut self) {
        if self.driver.features.is_some() {
            let reset = self.exchange(|session, deadline| session.reset(deadline));
            if let Err(error) = reset {
                self.warn(&error, "cannot reset the device in order");
            }
        }
        self.driver = Driver::new(self.queue_sizes.len());
        let cleared = self.shared_memory.as_ref().map(|memory| memory.clear());
        if let Some(Err(error)) = cleared {
            let error = self.error(Problem::SharedMemory(error));
            self.warn(&error, "cannot reset the device in order");
        }
    }

    fn presence(&self) -> Option<Arc<Presence>> {
        Some(self.presence.clone())
    }

    fn queue_errors(&self, index: u16) -> u64 {
        let ring = self.driver.rings.get(usize::from(index));
        ring.and_then(Option::as_ref).map_or(0, |ring| ring.errors)
    }

    fn replace_backend(&mut self) -> Result<DeviceEvent, DeviceError> {
        Ok(self.replace()?)
    }

    fn pause(&mut self) -> DeviceEvent {
        self.stand_still()
    }

    fn unpause(&mut self) -> DeviceEvent {
        self.go_on()
    }

    fn note_writes(&mut self, wanted: bool) -> Result<DeviceEvent, DeviceError> {
        Ok(self.log_writes(wanted)?)
    }

    fn written(&mut self) -> Option<Vec<Range<u64>>> {
        self.written_pages()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn handle_event(&mut self) -> DeviceEvent {
        let event = match self.events.ready() {
            Some(Source::Backend) => self.on_backend(),
            Some(Source::Requests) => self.on_requests(),
            Some(Source::RingErrors) => self.on_ring_errors(),
            Some(Source::Timer) => self.on_timer(),
            Some(Source::Arrival) => self.on_arrival(),
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

    /// All that the driver has written to the configuration space, these bytes last, with
    /// zeroes where it has written nothing. What it reads there is another matter: an
    /// answer need not repeat the question.
    fn question_with(&mut self, offset: u32, data: &[u8]) -> Vec<u8> {
        let question = &mut self.driver.question;
        question.resize(self.config.len(), 0);
        let there = question.get_mut(offset as usize..).unwrap_or_default();
        for (there, byte) in there.iter_mut().zip(data) {
            *there = *byte;
        }
        question.clone()
    }

    fn ring_mut(&mut self, index: u16) -> Option<&mut Option<Ring>> {
        self.driver.rings.get_mut(usize::from(index))
    }

    /// Notes a ring that the driver starts, and returns what its backend has to know.
    fn note_ring(&mut self, index: u16, mut ring: Ring) -> Result<RingSetup, Problem> {
        let base = ring.began();
        if matches!(self.link, Link::Up(_)) {
            self.check_queue(index)?;
            ring.mark_running(base);
        }
        let addresses = self.ring_addresses(index, &ring.queue)?;
        let setup = ring_setup(&mut ring, addresses, base)?;
        if let Some(slot) = self.ring_mut(index) {
            *slot = Some(ring);
        }
        Ok(setup)
    }

    fn try_start(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &Arc<Kick>,
        call: &EventFd,
    ) -> Result<(), Error> {
        let ring = Ring::new(queue, kick, call);
        let setup = ring
            .map_err(|source| Problem::EventFd {
                queue: index,
                source,
            })
            .and_then(|ring| self.note_ring(index, ring));
        let setup = setup.map_err(|problem| self.error(problem))?;
        self.exchange(|session, deadline| session.start_ring(&setup, deadline))?;
        Ok(())
    }

    fn try_stop(&mut self, index: u16) -> Result<u32, Error> {
        let answer = self.exchange(|session, deadline| session.stop_ring(index, deadline))?;
        let Some(base) = answer else {
            return Ok(0);
        };
        let found = base.index;
        if found == u32::from(index) {
            return Ok(base.num);
        }
        let problem = Problem::WrongQueue {
            asked: index,
            found,
        };
        self.lose(problem).map_or(Ok(0), Err)
    }
}
