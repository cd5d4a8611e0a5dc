//! The driver's accesses to the registers (virtio 1.3, section 4.2.2).

use super::MmioTransport;
use crate::bus::{AccessError, BusDevice};
use crate::deadline::Deadline;
use crate::virtio::queue::{Half, Part, QueueSetup};
use crate::virtio::queues::Queue;
use crate::virtio::spec::{self, InterruptBits, Register};
use crate::virtio::status::Status;

impl MmioTransport {
    fn write_register(
        &mut self,
        register: Register,
        value: u32,
        deadline: &Deadline,
    ) -> Result<(), AccessError> {
        match register {
            Register::DeviceFeaturesSel => self.features.select_device_half(value),
            Register::DriverFeatures => self.choose_features(value),
            Register::DriverFeaturesSel => self.features.select_driver_half(value),
            Register::QueueSel => self.queues.select(value),
            Register::QueueSize => self.set_up_queue(|setup| setup.size = value),
            Register::QueueReady => self.write_queue_ready(value, deadline),
            Register::QueueNotify => self.notify(value),
            Register::InterruptAck => self.acknowledge_interrupt(value),
            Register::Status => self.write_status(value, deadline),
            Register::QueueDescLow => self.set_address(Part::Descriptors, Half::Low, value),
            Register::QueueDescHigh => self.set_address(Part::Descriptors, Half::High, value),
            Register::QueueDriverLow => self.set_address(Part::Available, Half::Low, value),
            Register::QueueDriverHigh => self.set_address(Part::Available, Half::High, value),
            Register::QueueDeviceLow => self.set_address(Part::Used, Half::Low, value),
            Register::QueueDeviceHigh => self.set_address(Part::Used, Half::High, value),
            Register::ShmSel => self.shared_memory_select = value,
            Register::QueueReset => self.write_queue_reset(value, deadline),
            Register::MagicValue
            | Register::Version
            | Register::DeviceId
            | Register::VendorId
            | Register::DeviceFeatures
            | Register::QueueSizeMax
            | Register::InterruptStatus
            | Register::ShmLenLow
            | Register::ShmLenHigh
            | Register::ShmBaseLow
            | Register::ShmBaseHigh
            | Register::ConfigGeneration => return Err(AccessError::ReadOnly),
        }
        Ok(())
    }

    fn choose_features(&mut self, value: u32) {
        if self.status.contains(Status::FEATURES_OK) {
            return self.log.driver("it chose features after FEATURES_OK");
        }
        self.features.choose_half(value);
    }

    fn set_address(&mut self, part: Part, half: Half, value: u32) {
        self.set_up_queue(|setup| setup.set_address(part, half, value));
    }

    fn set_up_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        match self.queues.selected_mut().map(Queue::setup) {
            Some(Some(setup)) => change(setup),
            Some(None) => self.log.driver("it configured a queue that is ready"),
            None => self.log.driver("it configured a queue that does not exist"),
        }
    }

    fn write_queue_ready(&mut self, value: u32, deadline: &Deadline) {
        let Some(queue) = self.queues.selected() else {
            let what = "it made a queue ready that does not exist";
            return self.log.driver(what);
        };
        let (index, is_ready) = (queue.index(), queue.is_ready());
        match (value, is_ready) {
            (0, true) => self.retire_queue(index, deadline),
            (1, false) => self.make_queue_ready(index, deadline),
            (0 | 1, _) => {}
            _ => self.log.driver("it wrote neither 0 nor 1 to QueueReady"),
        }
    }

    /// A notification that exited: the host did not match it in the kernel.
    fn notify(&mut self, value: u32) {
        self.counters.notify_exits += 1;
        match self.queues.get(value) {
            Some(queue) => queue.kick().signal(),
            None => self.log.driver("it notified a queue that does not exist"),
        }
    }

    fn acknowledge_interrupt(&mut self, value: u32) {
        if value & InterruptBits::USED_BUFFER != 0 {
            self.counters.interrupts_acknowledged += 1;
        }
        self.interrupts.acknowledge(value);
    }

    fn write_config_space(
        &mut self,
        offset: usize,
        data: &[u8],
        deadline: &Deadline,
    ) -> Result<(), AccessError> {
        let end = offset + data.len();
        if end > self.config.len() {
            return Err(AccessError::NoRegister);
        }
        self.write_device_config(offset as u32, data, deadline);
        Ok(())
    }
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<(), AccessError> {
        self.counters.read_exits += 1;
        self.page.read(offset, data).ok_or(AccessError::CrossesEnd)
    }

    /// Control registers take aligned 32-bit accesses only (section 4.2.2.2).
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), AccessError> {
        self.counters.write_exits += 1;
        let deadline = self.deadline();
        let result = match offset.checked_sub(spec::CONFIG_OFFSET as u64) {
            Some(offset) => self.write_config_space(offset as usize, data, &deadline),
            None => {
                let register = Register::at(offset).ok_or(AccessError::NoRegister)?;
                let bytes = data.try_into().map_err(|_| AccessError::Width)?;
                self.write_register(register, u32::from_le_bytes(bytes), &deadline)
            }
        };
        self.publish();
        result
    }
}
