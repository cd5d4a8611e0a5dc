//! Publishing the state on the register page.

use super::MmioTransport;
use crate::virtio::queues::Queue;
use crate::virtio::shared_memory;
use crate::virtio::spec::{self, Register};

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
        let queue = self.queues.selected();
        let ready = queue.is_some_and(Queue::is_ready);
        let size_max = queue.map_or(0, Queue::max_size);
        let (len, base) =
            shared_memory::registers(self.device.shared_memory(), self.shared_memory_select);
        for (register, value) in [
            (Register::DeviceFeatures, self.features.device_half()),
            (Register::QueueSizeMax, size_max.into()),
            (Register::QueueReady, ready.into()),
            (
                Register::InterruptStatus,
                self.interrupts.status(self.status),
            ),
            (Register::Status, self.status.bits()),
            (Register::ShmLenLow, len as u32),
            (Register::ShmLenHigh, (len >> u32::BITS) as u32),
            (Register::ShmBaseLow, base as u32),
            (Register::ShmBaseHigh, (base >> u32::BITS) as u32),
        ] {
            self.page.publish(register, value);
        }
    }

    /// Before the first queue starts: another vCPU may take an interrupt of it at once.
    pub(super) fn publish_interrupt_status(&self) {
        let status = self.interrupts.status(self.status);
        self.page.publish(Register::InterruptStatus, status);
    }
}
