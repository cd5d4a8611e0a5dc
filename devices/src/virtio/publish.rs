//! Publishing the state on the register page.

use super::mmio::MmioTransport;
use super::page::CONFIG_MAX;
use super::shared_memory;
use super::spec::{self, InterruptBits, Register};
use super::status::Status;

impl MmioTransport {
    /// Registers that never change.
    pub(super) fn publish_identity(&self) {
        let device_id = self.device.device_type().id();
        for (register, value) in [
            (Register::MagicValue, spec::MAGIC),
            (Register::Version, spec::VERSION),
            (Register::DeviceId, device_id),
            (Register::VendorId, spec::VENDOR),
        ] {
            self.page.publish(register, value);
        }
    }

    /// Registers that follow from the state.
    pub(super) fn publish(&self) {
        let queue = self.queues.get(self.queue_select as usize);
        let ready = queue.is_some_and(|queue| queue.ready.is_some());
        let size_max = queue.map_or(0, |queue| queue.max_size);
        let (len, base) =
            shared_memory::registers(self.device.shared_memory(), self.shared_memory_select);
        for (register, value) in [
            (Register::DeviceFeatures, self.features.device_half()),
            (Register::QueueSizeMax, size_max.into()),
            (Register::QueueReady, ready.into()),
            (Register::InterruptStatus, self.interrupt_status()),
            (Register::Status, self.status.bits()),
            (Register::ShmLenLow, len as u32),
            (Register::ShmLenHigh, (len >> u32::BITS) as u32),
            (Register::ShmBaseLow, base as u32),
            (Register::ShmBaseHigh, (base >> u32::BITS) as u32),
        ] {
            self.page.publish(register, value);
        }
    }

    /// The backend raises interrupts without us, so that we cannot know when
    /// one is pending. Only a real interrupt makes the driver look, therefore
    /// the used-buffer bit reads 1 from DRIVER_OK on: the worst is a look at an empty ring.
    /// Before, nothing may be pending (section 4.2.2.1).
    fn interrupt_status(&self) -> u32 {
        if !self.status.contains(Status::DRIVER_OK) {
            return 0;
        }
        let config = if self.config_pending {
            InterruptBits::CONFIG_CHANGE
        } else {
            0
        };
        InterruptBits::USED_BUFFER | config
    }

    /// Before the first queue starts: another vCPU may take an interrupt of it at once.
    pub(super) fn publish_interrupt_status(&self) {
        let status = self.interrupt_status();
        self.page.publish(Register::InterruptStatus, status);
    }

    /// Publishes `config` as the device configuration space.
    ///
    /// The generation (section 2.5.3) changes before and after: a read that
    /// overlaps the update sees two different ones, unless it fits in between
    /// whole, and then the interrupt that follows makes the driver read again.
    pub(super) fn set_config(&mut self, mut config: Vec<u8>) {
        config.truncate(CONFIG_MAX);
        self.publish_generation();
        self.page.publish_config(&config);
        self.publish_generation();
        self.config = config;
    }

    fn publish_generation(&mut self) {
        self.config_generation = self.config_generation.wrapping_add(1);
        self.page
            .publish(Register::ConfigGeneration, self.config_generation);
    }
}
