//! The register front of a device (virtio 1.3, section 4.2.2).
//!
//! The guest always reads from the [`RegisterPage`]. Its writes change the
//! state here, and the page is published again from that state.

mod lifecycle;
mod publish;
mod registers;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use vm_memory::GuestAddress;

use super::config_space::ConfigSpace;
use super::counters::{Counters, TransportInfo};
use super::fault_log::FaultLog;
use super::features::{self, Negotiation, VERSION_1};
use super::interrupts::Interrupts;
use super::kick::KickCounter;
use super::page::RegisterPage;
use super::queue;
use super::queues::{Queue, Queues};
use super::spec::Register;
use super::status::Status;
use super::{Device, DeviceError, DeviceEvent, GuestMemory};
use crate::deadline::Deadline;
use crate::hypervisor::Hypervisor;

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

/// A virtio-mmio device on the bus. Only this module and those below it see its parts.
pub struct MmioTransport {
    id: String,
    device: Box<dyn Device>,
    memory: Arc<GuestMemory>,
    page: Arc<RegisterPage>,
    status: Status,
    features: Negotiation,
    queues: Queues,
    /// ShmSel.
    shared_memory_select: u32,
    interrupts: Interrupts,
    config: ConfigSpace,
    counters: Counters,
    log: FaultLog,
    on_broken: Option<OnBroken>,
}

/// Told why a device needs a reset.
pub type OnBroken = Box<dyn Fn(&dyn std::error::Error) + Send>;

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
        let queues = new_queues(&id, device.queue_max_sizes(), base, &hypervisor)?;
        let page = RegisterPage::new();
        let page = page.map_err(Error::host(&id, "cannot map its register page"))?;
        let interrupts = Interrupts::new();
        let interrupts = interrupts.map_err(Error::host(&id, "cannot make an eventfd"))?;
        let mut transport = Self {
            features: Negotiation::new(device.device_type(), device.features()),
            memory,
            page: Arc::new(page),
            status: Status::default(),
            queues,
            shared_memory_select: 0,
            interrupts,
            config: ConfigSpace::default(),
            counters: Counters::default(),
            log: FaultLog::new(id.clone()),
            on_broken: None,
            device,
            id,
        };
        transport.config.publish(config, &transport.page);
        transport.config.settle();
        transport.publish_identity();
        transport.publish();
        transport.wire(base, gsi, hypervisor.as_ref())?;
        Ok(transport)
    }

    /// Ties the event descriptors and the page to the hypervisor, for good.
    fn wire(&self, base: GuestAddress, gsi: u32, hypervisor: &dyn Hypervisor) -> Result<(), Error> {
        let host = |what| Error::host(&self.id, what);
        let calls = self.queues.iter().map(Queue::call);
        for call in calls.chain([self.interrupts.config_call()]) {
            hypervisor
                .add_irqfd(gsi, call)
                .map_err(host("cannot route an eventfd to its interrupt"))?;
        }
        self.interrupts
            .wire(hypervisor, register(base, Register::InterruptAck))
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
        let found = self.queues.get(queue.into());
        found.ok_or(io::ErrorKind::NotFound)?.kick().trap(trap)
    }

    /// The counter of the kicks of `queue`, where the kernel tells.
    pub fn kick_counter(&self, queue: u16) -> Option<KickCounter> {
        self.queues.get(queue.into())?.kick().counter()
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

    /// Has `on_broken` told each time that the driver has to reset the device. It must not wait:
    /// a guest can bring that about at will.
    pub fn set_on_broken(&mut self, on_broken: OnBroken) {
        self.on_broken = Some(on_broken);
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
        self.counters.interrupts_acknowledged += self.interrupts.take_acknowledged();
        let device_type = self.device.device_type();
        TransportInfo {
            id: self.id.clone(),
            device_type,
            status: self.status.to_string(),
            interrupt_status: self.interrupts.status(self.status),
            features_offered: features::names(device_type, self.features.offered()),
            chosen: self.features.chosen(),
            features_chosen: features::names(device_type, self.features.chosen()),
            queues: self.queues.iter().map(Queue::info).collect(),
            counters: self.counters,
        }
    }
}

impl Error {
    /// For what the host refuses to device `id`.
    fn host(id: &str, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        let id = id.to_owned();
        move |source| Self::Host { id, what, source }
    }
}

fn new_queues(
    id: &str,
    sizes: &[u16],
    base: GuestAddress,
    hypervisor: &Arc<dyn Hypervisor>,
) -> Result<Queues, Error> {
    let valid = |size: &u16| size.is_power_of_two() && *size <= queue::MAX_SIZE;
    if sizes.is_empty() || !sizes.iter().all(valid) {
        return Err(Error::QueueSizes {
            id: id.to_owned(),
            sizes: sizes.to_vec(),
        });
    }
    let notify = register(base, Register::QueueNotify);
    let new = |(index, &max_size): (u16, &u16)| Queue::new(hypervisor, notify, index, max_size);
    let queues = (0..).zip(sizes).map(new).collect::<io::Result<_>>();
    let routed = "cannot route its queue notifications to an eventfd";
    Ok(Queues::new(queues.map_err(Error::host(id, routed))?))
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
