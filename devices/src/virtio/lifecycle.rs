//! Starting, stopping, resetting and breaking: where the driver's handshake
//! meets the device.

use std::error::Error;
use std::ops::Range;

use super::features::{Negotiation, RING_RESET};
use super::mmio::MmioTransport;
use super::status::{Status, Step};
use crate::deadline::Deadline;

impl MmioTransport {
    pub(super) fn write_status(&mut self, value: u32, deadline: &Deadline) {
        let features = self.features;
        match self.status.write(value, || features.check()) {
            Ok(Step::Proceed) => {}
            Ok(Step::Reset) => self.reset_device(deadline),
            Ok(Step::Start) => self.start(deadline),
            Ok(Step::GiveUp) => {
                self.log_driver("it gave up on the device (FAILED)");
                self.stop_queues(deadline);
            }
            Err(error) => self.log_driver_error("its handshake is wrong", &error),
        }
    }

    /// DRIVER_OK: the device takes the features and starts the ready queues.
    fn start(&mut self, deadline: &Deadline) {
        self.publish_interrupt_status();
        if let Err(error) = self.device.activate(self.features.chosen(), deadline) {
            return self.broken(error.as_ref(), deadline);
        }
        for index in 0..self.queues.len() {
            if self.queues[index].ready.is_none() {
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
        tracing::debug!(device = %self.id, "started");
    }

    /// Starts a queue if it is ready. When that fails the device needs a reset.
    fn start_queue(&mut self, index: usize, deadline: &Deadline) {
        let queue = &mut self.queues[index];
        let Some(config) = queue.ready else {
            return;
        };
        // The number of queues is a u16's: they come from the device's list,
        // and a QueueSel beyond it finds none.
        let (kick, call) = (&queue.kick, &queue.call);
        let started = self
            .device
            .start_queue(index as u16, &config, kick, call, deadline);
        match started {
            Ok(()) => queue.running = true,
            Err(error) => self.broken(error.as_ref(), deadline),
        }
    }

    /// QueueReady = 1. A queue that cannot be is not ready, as the driver may see.
    pub(super) fn make_queue_ready(&mut self, index: usize, deadline: &Deadline) {
        self.check_queue(index);
        if self.is_live() {
            self.start_queue(index, deadline);
        }
    }

    fn check_queue(&mut self, index: usize) {
        let format = self.features.queue_format();
        let queue = &mut self.queues[index];
        let checked = queue.setup.check(format, queue.max_size, &self.memory);
        queue.ready = checked.as_ref().ok().copied();
        if let Err(error) = checked {
            self.log_driver_error(&format!("its queue {index} is wrong"), &error);
        }
    }

    /// QueueReady = 0.
    pub(super) fn retire_queue(&mut self, index: usize, deadline: &Deadline) {
        self.stop_if_running(index..index + 1, deadline);
        self.queues[index].ready = None;
    }

    /// QueueReset (section 2.6.1). The queue is reset when this returns, so that
    /// the register always reads 0.
    pub(super) fn write_queue_reset(&mut self, value: u32, deadline: &Deadline) {
        let is_agreed =
            self.features.chosen() & RING_RESET != 0 && self.status.contains(Status::FEATURES_OK);
        let index = self.queue_select as usize;
        match self.queues.get_mut(index) {
            Some(_) if value != 1 => self.log_driver("it wrote something but 1 to QueueReset"),
            Some(_) if !is_agreed => {
                self.log_driver("it reset a queue, but has not taken VIRTIO_F_RING_RESET")
            }
            Some(queue) => {
                queue.setup = Default::default();
                self.retire_queue(index, deadline);
            }
            None => self.log_driver("it reset a queue that does not exist"),
        }
    }

    fn stop_queues(&mut self, deadline: &Deadline) {
        self.stop_if_running(0..self.queues.len(), deadline);
    }

    fn stop_if_running(&mut self, queues: Range<usize>, deadline: &Deadline) {
        let was_running = |index: &usize| std::mem::take(&mut self.queues[*index].running);
        let running = queues.filter(was_running).map(|index| index as u16);
        let running: Vec<u16> = running.collect();
        if running.is_empty() {
            return;
        }
        if let Err(error) = self.device.stop_queues(&running, deadline) {
            self.log_device_error("cannot stop its queues in order", error.as_ref());
        }
    }

    /// Status = 0 (virtio 1.3, section 4.2.2.1).
    pub(super) fn reset_device(&mut self, deadline: &Deadline) {
        self.counters.resets += 1;
        self.stop_queues(deadline);
        self.device.reset(deadline);
        // A reset takes back what the driver has set there, such as an address.
        self.refresh_config(deadline);
        for queue in &mut self.queues {
            queue.ready = None;
            queue.setup = Default::default();
        }
        self.features = Negotiation::new(self.device.device_type(), self.device.features());
        self.status = Status::default();
        self.config_pending = false;
    }

    /// The driver wrote to the configuration space. The device decides what it
    /// then reads; it may refuse the write and still be sound.
    pub(super) fn write_device_config(&mut self, offset: u32, data: &[u8], deadline: &Deadline) {
        if let Err(error) = self.device.write_config(offset, data, deadline) {
            self.log_device_error("cannot write its configuration space", error.as_ref());
        }
        self.refresh_config(deadline);
    }

    /// The device changed its configuration space by itself.
    pub(super) fn config_changed(&mut self, deadline: &Deadline) {
        self.refresh_config(deadline);
        self.device.config_published();
        self.announce_config_change();
    }

    fn refresh_config(&mut self, deadline: &Deadline) {
        match self.device.read_config(deadline) {
            Ok(config) if config != self.config => self.set_config(config),
            Ok(_) => {}
            Err(error) => self.broken(error.as_ref(), deadline),
        }
    }

    /// The device does not work any more: the driver is told to reset it
    /// (section 2.1.2), and all else keeps working.
    pub(super) fn broken(&mut self, reason: &(dyn Error + 'static), deadline: &Deadline) {
        self.log_device_error("device needs a reset", reason);
        self.stop_queues(deadline);
        self.status.set_needs_reset();
        self.announce_config_change();
    }

    /// Interrupts the driver for a change of configuration or status. Before
    /// DRIVER_OK it is not to be interrupted, and will read both anyway.
    fn announce_config_change(&mut self) {
        if !self.status.contains(Status::DRIVER_OK) {
            return;
        }
        self.config_pending = true;
        self.counters.config_interrupts += 1;
        self.publish();
        if let Err(error) = self.config_call.write(1) {
            self.log_device_error("cannot interrupt the driver", &error);
        }
    }

    /// Whether queues that become ready are to run at once.
    fn is_live(&self) -> bool {
        self.status.contains(Status::DRIVER_OK)
            && !self.status.contains(Status::NEEDS_RESET)
            && !self.status.contains(Status::FAILED)
    }

    pub(super) fn log_driver(&mut self, what: &str) {
        if let Some(suppressed) = self.guest_log.admit() {
            tracing::warn!(device = %self.id, suppressed, "the guest's driver is at fault: {what}");
        }
    }

    fn log_driver_error(&mut self, what: &str, error: &(dyn Error + 'static)) {
        if let Some(suppressed) = self.guest_log.admit() {
            tracing::warn!(device = %self.id, suppressed, error, "the guest's driver is at fault: {what}");
        }
    }

    /// A guest can cause these again and again, by resetting a device that
    /// stays broken.
    fn log_device_error(&mut self, what: &str, error: &(dyn Error + 'static)) {
        if let Some(suppressed) = self.guest_log.admit() {
            tracing::error!(device = %self.id, suppressed, error, "{what}");
        }
    }
}
