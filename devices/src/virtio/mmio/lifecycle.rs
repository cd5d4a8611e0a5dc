//! Starting, stopping, resetting and breaking: where the driver's handshake
//! meets the device.

use std::error::Error;
use std::ops::Range;

use super::MmioTransport;
use crate::deadline::Deadline;
use crate::virtio::features::{Negotiation, RING_RESET};
use crate::virtio::queues::Queue;
use crate::virtio::status::{Status, Step};

impl MmioTransport {
    pub(super) fn write_status(&mut self, value: u32, deadline: &Deadline) {
        let features = self.features;
        match self.status.write(value, || features.check()) {
            Ok(Step::Proceed) => {}
            Ok(Step::Reset) => self.reset_device(deadline),
            Ok(Step::Start) => self.start(deadline),
            Ok(Step::GiveUp) => {
                self.log.driver("it gave up on the device (FAILED)");
                self.stop_queues(deadline);
            }
            Err(error) => self.log.driver_error("its handshake is wrong", &error),
        }
    }

    /// DRIVER_OK: the device takes the features and starts the ready queues.
    fn start(&mut self, deadline: &Deadline) {
        self.publish_interrupt_status();
        if let Err(error) = self.device.activate(self.features.chosen(), deadline) {
            return self.broken(error.as_ref(), deadline);
        }
        for index in 0..self.queues.count() {
            if self
                .queues
                .get(index.into())
                .is_none_or(|queue| !queue.is_ready())
            {
                continue;
            }
            // It may have been made ready before the features were settled, hence in
            // the other format.
            self.check_queue(index);
            self.start_queue(index, deadline);
            if self.status.contains(Status::NEEDS_RESET) {
                return;
            }
        }
        if let Err(error) = self.device.begin(deadline) {
            return self.broken(error.as_ref(), deadline);
        }
        tracing::debug!(device = self.id(), "started");
    }

    /// Starts a queue if it is ready. When that fails the device needs a reset.
    fn start_queue(&mut self, index: u16, deadline: &Deadline) {
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if let Err(error) = queue.start(self.device.as_mut(), deadline) {
            self.broken(error.as_ref(), deadline);
        }
    }

    /// QueueReady = 1. A queue that cannot be is not ready, as the driver may see.
    pub(super) fn make_queue_ready(&mut self, index: u16, deadline: &Deadline) {
        self.check_queue(index);
        if self.is_live() {
            self.start_queue(index, deadline);
        }
    }

    fn check_queue(&mut self, index: u16) {
        let format = self.features.queue_format();
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        if let Err(error) = queue.make_ready(format, &self.memory) {
            self.log
                .driver_error(&format!("its queue {index} is wrong"), &error);
        }
    }

    /// QueueReady = 0.
    pub(super) fn retire_queue(&mut self, index: u16, deadline: &Deadline) {
        self.stop_if_running(index..index + 1, deadline);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.retire();
        }
    }

    /// QueueReset (section 2.6.1). The queue is reset when this returns, so that
    /// the register always reads 0.
    pub(super) fn write_queue_reset(&mut self, value: u32, deadline: &Deadline) {
        let is_agreed =
            self.features.chosen() & RING_RESET != 0 && self.status.contains(Status::FEATURES_OK);
        match self.queues.selected().map(Queue::index) {
            Some(_) if value != 1 => self.log.driver("it wrote something but 1 to QueueReset"),
            Some(_) if !is_agreed => self
                .log
                .driver("it reset a queue, but has not taken VIRTIO_F_RING_RESET"),
            Some(index) => {
                self.stop_if_running(index..index + 1, deadline);
                if let Some(queue) = self.queues.get_mut(index) {
                    queue.reset();
                }
            }
            None => self.log.driver("it reset a queue that does not exist"),
        }
    }

    fn stop_queues(&mut self, deadline: &Deadline) {
        self.stop_if_running(0..self.queues.count(), deadline);
    }

    fn stop_if_running(&mut self, queues: Range<u16>, deadline: &Deadline) {
        let running = self.queues.take_running(queues);
        if running.is_empty() {
            return;
        }
        if let Err(error) = self.device.stop_queues(&running, deadline) {
            self.log
                .device("cannot stop its queues in order", error.as_ref());
        }
    }

    /// Status = 0 (virtio 1.3, section 4.2.2.1).
    pub(super) fn reset_device(&mut self, deadline: &Deadline) {
        self.counters.resets += 1;
        self.stop_queues(deadline);
        self.device.reset(deadline);
        // Only a space that has changed is read again: that is a message, for which a backend may
        // not be ready at any other time.
        if self.config.has_changed() && self.refresh_config(deadline) {
            self.config.settle();
        }
        self.queues.reset();
        self.features = Negotiation::new(self.device.device_type(), self.device.features());
        self.status = Status::default();
        self.interrupts.reset();
    }

    /// The driver wrote to the configuration space. The device decides what it
    /// then reads; it may refuse the write and still be sound.
    pub(super) fn write_device_config(&mut self, offset: u32, data: &[u8], deadline: &Deadline) {
        if let Err(error) = self.device.write_config(offset, data, deadline) {
            self.log
                .device("cannot write its configuration space", error.as_ref());
        }
        self.refresh_config(deadline);
    }

    /// The device changed its configuration space by itself.
    pub(super) fn config_changed(&mut self, deadline: &Deadline) {
        self.refresh_config(deadline);
        self.device.config_published();
        self.announce_config_change();
    }

    /// Publishes the configuration space as the device has it; says whether it could be read.
    fn refresh_config(&mut self, deadline: &Deadline) -> bool {
        match self.device.read_config(deadline) {
            Ok(config) => {
                self.config.publish(config, &self.page);
                true
            }
            Err(error) => {
                self.broken(error.as_ref(), deadline);
                false
            }
        }
    }

    /// The device does not work any more: the driver is told to reset it
    /// (section 2.1.2), and all else keeps working.
    pub(super) fn broken(&mut self, reason: &(dyn Error + 'static), deadline: &Deadline) {
        self.log.device("device needs a reset", reason);
        self.stop_queues(deadline);
        let was_broken = self.status.contains(Status::NEEDS_RESET);
        self.status.set_needs_reset();
        if let Some(on_broken) = self.on_broken.as_ref().filter(|_| !was_broken) {
            on_broken(reason);
        }
        self.announce_config_change();
    }

    /// Interrupts the driver for a change of configuration or status. Before
    /// DRIVER_OK it is not to be interrupted, and will read both anyway.
    fn announce_config_change(&mut self) {
        if !self.status.contains(Status::DRIVER_OK) {
            return;
        }
        self.interrupts.set_config_change();
        self.counters.config_interrupts += 1;
        self.publish();
        if let Err(error) = self.interrupts.raise() {
            self.log.device("cannot interrupt the driver", &error);
        }
    }

    /// Whether queues that become ready are to run at once.
    fn is_live(&self) -> bool {
        self.status.contains(Status::DRIVER_OK)
            && !self.status.contains(Status::NEEDS_RESET)
            && !self.status.contains(Status::FAILED)
    }
}
