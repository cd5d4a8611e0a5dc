//! The register front of a device (virtio 1.3, section 4.2.2).
//!
//! The guest always reads from the [`RegisterPage`]. Its writes change the
//! state here, and the page is published again from that state.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use super::counters::{Counters, QueueInfo, TransportInfo};
use super::features::{self, Negotiation, VERSION_1};
use super::kick::{Kick, event_fd};
use super::page::RegisterPage;
use super::queue::{self, Half, Part, QueueConfig, QueueSetup};
use super::rate_limit::RateLimit;
use super::spec::{self, InterruptBits, Register};
use super::status::Status;
use super::{Device, DeviceError, DeviceEvent, GuestMemory};
use crate::bus::{AccessError, BusDevice};
use crate::deadline::Deadline;
use crate::hypervisor::Hypervisor;

/// Log lines about one guest driver's mistakes: this many in this time.
const GUEST_LOG: RateLimit = RateLimit::new(20, Duration::from_secs(10));

/// A transport could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("device {id}: {what}")]
    Host {
        id: String,
        what: &'static str,
        source: io::Error,
    },
    #[error("device {id}: cannot read its configuration space")]
    Config { id: String, source: DeviceError },
    #[error("device {id} does not offer VIRTIO_F_VERSION_1: legacy devices are not supported")]
    Legacy { id: String },
    #[error(
        "device {id} has queue sizes {sizes:?}: not one or more powers of two up to {}",
        queue::MAX_SIZE
    )]
    QueueSizes { id: String, sizes: Vec<u16> },
}

/// One queue: its registers, and the event descriptors that outlive resets.
pub(super) struct Queue {
    pub(super) max_size: u16,
    pub(super) setup: QueueSetup,
    pub(super) ready: Option<QueueConfig>,
    pub(super) running: bool,
    /// The guest's writes to QueueNotify.
    pub(super) kick: Arc<Kick>,
    /// Raises the interrupt when signalled.
    pub(super) call: EventFd,
}

/// A virtio-mmio device on the bus.
pub struct MmioTransport {
    pub(super) id: String,
    pub(super) device: Box<dyn Device>,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) page: Arc<RegisterPage>,
    pub(super) status: Status,
    pub(super) features: Negotiation,
    pub(super) queues: Vec<Queue>,
    pub(super) queue_select: u32,
    pub(super) shared_memory_select: u32,
    /// Raises the interrupt for a configuration change.
    pub(super) config_call: EventFd,
    pub(super) config_pending: bool,
    /// Counts the InterruptACKs of used buffers; nobody waits on it.
    acknowledged: EventFd,
    /// The configuration space as the guest reads it.
    pub(super) config: Vec<u8>,
    pub(super) config_generation: u32,
    pub(super) counters: Counters,
    pub(super) guest_log: RateLimit,
}

impl MmioTransport {
    /// Puts `device` behind a register window at `base` and wires its events to
    /// the hypervisor: kicks and acknowledgements by ioeventfd, interrupts on
    /// `gsi` by irqfd, reads by a read-only mapping where the host has them.
    ///
    /// The caller puts the transport on the bus, at `base` with a length of
    /// [`PAGE_SIZE`](super::page::PAGE_SIZE).
    pub fn new(
        id: String,
        mut device: Box<dyn Device>,
        memory: Arc<GuestMemory>,
        base: GuestAddress,
        gsi: u32,
        hypervisor: Arc<dyn Hypervisor>,
    ) -> Result<Self, Error> {
        if device.features() & VERSION_1 == 0 {
            return Err(Error::Legacy { id });
        }
        let deadline = Deadline::after(device.patience());
        let config = match device.read_config(&deadline) {
            Ok(config) => config,
            Err(source) => return Err(Error::Config { id, source }),
        };
        let notify = register(base, Register::QueueNotify);
        let queues = Self::new_queues(&id, device.queue_max_sizes(), notify, &hypervisor)?;
        let host = |what| {
            let id = id.clone();
            move |source| Error::Host { id, what, source }
        };
        let mut transport = Self {
            features: Negotiation::new(device.device_type(), device.features()),
            memory,
            page: Arc::new(RegisterPage::new().map_err(host("cannot map its register page"))?),
            status: Status::default(),
            queues,
            queue_select: 0,
            shared_memory_select: 0,
            config_call: event_fd().map_err(host("cannot make an eventfd"))?,
            config_pending: false,
            acknowledged: event_fd().map_err(host("cannot make an eventfd"))?,
            config: Vec::new(),
            config_generation: 0,
            counters: Counters::default(),
            guest_log: GUEST_LOG,
            device,
            id,
        };
        transport.set_config(config);
        transport.publish_identity();
        transport.publish();
        transport.wire(base, gsi, hypervisor.as_ref())?;
        Ok(transport)
    }

    fn new_queues(
        id: &str,
        sizes: &[u16],
        notify: GuestAddress,
        hypervisor: &Arc<dyn Hypervisor>,
    ) -> Result<Vec<Queue>, Error> {
        let valid = |size: &u16| size.is_power_of_two() && *size <= queue::MAX_SIZE;
        if sizes.is_empty() || !sizes.iter().all(valid) {
            return Err(Error::QueueSizes {
                id: id.to_owned(),
                sizes: sizes.to_vec(),
            });
        }
        let host = |what| {
            move |source| Error::Host {
                id: id.to_owned(),
                what,
                source,
            }
        };
        let new_queue = |(index, &max_size): (u16, &u16)| {
            let kick = Kick::new(hypervisor.clone(), notify, index);
            let routed = "cannot route its queue notifications to an eventfd";
            Ok(Queue {
                max_size,
                setup: QueueSetup::default(),
                ready: None,
                running: false,
                kick: Arc::new(kick.map_err(host(routed))?),
                call: event_fd().map_err(host("cannot make an eventfd"))?,
            })
        };
        (0..).zip(sizes).map(new_queue).collect()
    }

    /// Ties the event descriptors and the page to the hypervisor, for good.
    fn wire(&self, base: GuestAddress, gsi: u32, hypervisor: &dyn Hypervisor) -> Result<(), Error> {
        let host = |what| {
            move |source| Error::Host {
                id: self.id.clone(),
                what,
                source,
            }
        };
        for queue in &self.queues {
            hypervisor
                .add_irqfd(gsi, &queue.call)
                .map_err(host("cannot route an eventfd to its interrupt"))?;
        }
        hypervisor
            .add_irqfd(gsi, &self.config_call)
            .map_err(host("cannot route an eventfd to its interrupt"))?;
        hypervisor
            .add_ioeventfd(
                register(base, Register::InterruptAck),
                InterruptBits::USED_BUFFER,
                &self.acknowledged,
            )
            .map_err(host(
                "cannot route its interrupt acknowledgements to an eventfd",
            ))?;
        match hypervisor.map_read_only(base, &self.page) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                tracing::info!(device = %self.id, "register reads will exit: the host has no read-only memory slots");
                Ok(())
            }
            result => result.map_err(host("cannot map its register page into the guest")),
        }
    }

    /// Has the driver's notifications of `queue` exit to user space, which passes
    /// them on to the device, or no longer. No vCPU may run meanwhile.
    ///
    /// # Errors
    /// The hypervisor refuses, or there is no such queue.
    pub fn trap_kicks(&mut self, queue: u16, trap: bool) -> io::Result<()> {
        let found = self.queues.get(usize::from(queue));
        found.ok_or(io::ErrorKind::NotFound)?.kick.trap(trap)
    }

    /// The descriptor to wait on, for as long as the transport exists; readable
    /// when [`handle_event`](Self::handle_event) is to be called.
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.device.event_fd()
    }

    /// Handles the event that made [`event_fd`](Self::event_fd) readable, tells
    /// the guest of it where needed, and returns it.
    ///
    /// Takes as long as an access of the guest may, where a backend is to be asked.
    pub fn handle_event(&mut self) -> DeviceEvent {
        let deadline = self.deadline();
        let event = self.device.handle_event(&deadline);
        self.take_event(&event, &deadline);
        event
    }

    /// Tells the guest where needed of an event that came of something else than the
    /// transport's calls to its device.
    pub fn on_event(&mut self, event: &DeviceEvent) {
        self.take_event(event, &self.deadline());
    }

    fn take_event(&mut self, event: &DeviceEvent, deadline: &Deadline) {
        match event {
            DeviceEvent::Nothing => {}
            DeviceEvent::ConfigChanged => self.config_changed(deadline),
            DeviceEvent::Broken(reason) => self.broken(reason.as_ref(), deadline),
        }
        self.publish();
    }

    /// The device's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The deadline of an operation that begins now: all its waits share it.
    fn deadline(&self) -> Deadline {
        Deadline::after(self.device.patience())
    }

    /// The machine resets: as if the driver had reset the device.
    pub fn reset(&mut self) {
        self.reset_device(&self.deadline());
        self.publish();
    }

    /// The transport as it stands.
    pub fn info(&mut self) -> TransportInfo {
        self.count_acknowledged();
        let device_type = self.device.device_type();
        let queue_info = |queue: &Queue| QueueInfo {
            max_size: queue.max_size,
            ready: queue.ready,
            running: queue.running,
        };
        TransportInfo {
            id: self.id.clone(),
            device_type,
            status: self.status.to_string(),
            features_offered: features::names(device_type, self.features.offered()),
            features_chosen: features::names(device_type, self.features.chosen()),
            queues: self.queues.iter().map(queue_info).collect(),
            counters: self.counters,
        }
    }

    /// Takes over the count of the eventfd that the kernel adds to.
    fn count_acknowledged(&mut self) {
        // An error means that there was nothing to count.
        self.counters.interrupts_acknowledged += self.acknowledged.read().unwrap_or(0);
    }

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
            Register::QueueSel => self.queue_select = value,
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
            return self.log_driver("it chose features after FEATURES_OK");
        }
        self.features.choose_half(value);
    }

    fn set_address(&mut self, part: Part, half: Half, value: u32) {
        self.set_up_queue(|setup| setup.set_address(part, half, value));
    }

    fn set_up_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        match self.queues.get_mut(self.queue_select as usize) {
            Some(queue) if queue.ready.is_none() => change(&mut queue.setup),
            Some(_) => self.log_driver("it configured a queue that is ready"),
            None => self.log_driver("it configured a queue that does not exist"),
        }
    }

    fn write_queue_ready(&mut self, value: u32, deadline: &Deadline) {
        let index = self.queue_select as usize;
        let Some(queue) = self.queues.get(index) else {
            return self.log_driver("it made a queue ready that does not exist");
        };
        match (value, queue.ready) {
            (0, Some(_)) => self.retire_queue(index, deadline),
            (1, None) => self.make_queue_ready(index, deadline),
            (0 | 1, _) => {}
            _ => self.log_driver("it wrote neither 0 nor 1 to QueueReady"),
        }
    }

    /// A notification that exited: the host did not match it in the kernel.
    fn notify(&mut self, value: u32) {
        self.counters.notify_exits += 1;
        match self.queues.get(value as usize) {
            Some(queue) => queue.kick.signal(),
            None => self.log_driver("it notified a queue that does not exist"),
        }
    }

    fn acknowledge_interrupt(&mut self, value: u32) {
        if value & InterruptBits::USED_BUFFER != 0 {
            self.counters.interrupts_acknowledged += 1;
        }
        if value & InterruptBits::CONFIG_CHANGE != 0 {
            self.config_pending = false;
        }
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

fn register(base: GuestAddress, register: Register) -> GuestAddress {
    GuestAddress(base.0 + register.offset() as u64)
}

#[cfg(test)]
#[path = "mmio_test.rs"]
mod tests;

#[cfg(test)]
#[path = "model_test.rs"]
mod model;
