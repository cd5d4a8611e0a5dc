//! The interrupt of a device (virtio 1.3, section 4.2.2): why it was raised, and who has
//! acknowledged it.

use std::io;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::kick::event_fd;
use super::spec::InterruptBits;
use super::status::Status;
use crate::hypervisor::Hypervisor;

/// The interrupt, without the calls of single queues.
pub struct Interrupts {
    /// Raises the interrupt for a configuration change.
    config_call: EventFd,
    config_pending: bool,
    /// Counts the InterruptACKs of used buffers; nobody waits on it.
    acknowledged: EventFd,
}

impl Interrupts {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            config_call: event_fd()?,
            config_pending: false,
            acknowledged: event_fd()?,
        })
    }

    /// Raises the interrupt for a configuration change when signalled.
    pub fn config_call(&self) -> &EventFd {
        &self.config_call
    }

    /// Has the kernel count the acknowledgements of used buffers, writes to `register`.
    pub fn wire(&self, hypervisor: &dyn Hypervisor, register: GuestAddress) -> io::Result<()> {
        hypervisor.add_ioeventfd(register, InterruptBits::USED_BUFFER, &self.acknowledged)
    }

    /// The acknowledgements that the kernel has counted since this was asked last.
    pub fn take_acknowledged(&self) -> u64 {
        // An error means that there was nothing to count.
        self.acknowledged.read().unwrap_or(0)
    }

    /// The value of InterruptStatus.
    ///
    /// The backend raises interrupts without us, so that we cannot know when
    /// one is pending. Only a real interrupt makes the driver look, therefore
    /// the used-buffer bit reads 1 from DRIVER_OK on: the worst is a look at an empty ring.
    /// Before, nothing may be pending (section 4.2.2.1).
    pub fn status(&self, device: Status) -> u32 {
        if !device.contains(Status::DRIVER_OK) {
            return 0;
        }
        let config = if self.config_pending {
            InterruptBits::CONFIG_CHANGE
        } else {
            0
        };
        InterruptBits::USED_BUFFER | config
    }

    /// The configuration has changed. The interrupt is still to be
    /// [raised](Self::raise), once the driver can read why.
    pub fn set_config_change(&mut self) {
        self.config_pending = true;
    }

    /// Interrupts the driver for a configuration change.
    pub fn raise(&self) -> io::Result<()> {
        self.config_call.write(1)
    }

    /// The driver's acknowledgement of a configuration change, where `value` is one.
    pub fn acknowledge(&mut self, value: u32) {
        if value & InterruptBits::CONFIG_CHANGE != 0 {
            self.config_pending = false;
        }
    }

    pub fn reset(&mut self) {
        self.config_pending = false;
    }
}
