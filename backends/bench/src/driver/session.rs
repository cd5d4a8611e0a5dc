//! A connection that is set up: features, memory, queues.

use std::os::fd::AsFd;
use std::rc::Rc;

use vhost::vhost_user::message::{
    VhostUserProtocolFeatures as Protocol, VhostUserVringAddr, VhostUserVringAddrFlags,
    VhostUserVringState,
};
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::frontend::{
    AddMemoryRegion, GetVringBase, SetMemTable, SetStatus, SetVringAddr, SetVringBase,
    SetVringCall, SetVringEnable, SetVringErr, SetVringKick, SetVringNum,
};
use vhost_user_wire::payload::VringFile;
use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::buffers::Buffers;
use super::error::DriverError;
use super::frontend::Frontend;
use super::memory::Memory;
use super::queue::{Queue, QueueFeatures};
use super::ring::{Format, Used};

/// ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK (virtio 1.4, section 2.1).
const READY: u64 = 1 | 2 | 8 | 4;

/// What the two sides have agreed upon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Negotiated {
    pub features: u64,
    pub protocol: u64,
}

impl Negotiated {
    /// Whether the feature with this number is negotiated.
    pub fn has(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }

    pub fn has_protocol(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() != 0
    }

    /// What concerns every queue.
    pub fn of_queues(&self) -> QueueFeatures {
        QueueFeatures {
            format: if self.has(VIRTIO_F_RING_PACKED) {
                Format::Packed
            } else {
                Format::Split
            },
            event_idx: self.has(VIRTIO_RING_F_EVENT_IDX),
            in_order: self.has(VIRTIO_F_IN_ORDER),
        }
    }
}

/// A frontend with guest memory and queues.
#[derive(Debug)]
pub struct Session {
    frontend: Frontend,
    negotiated: Negotiated,
    memory: Rc<Memory>,
    queues: Vec<Queue>,
}

impl Session {
    pub fn new(
        frontend: Frontend,
        negotiated: Negotiated,
        memory: Rc<Memory>,
        queues: Vec<Queue>,
    ) -> Self {
        Self {
            frontend,
            negotiated,
            memory,
            queues,
        }
    }

    pub fn frontend(&mut self) -> &mut Frontend {
        &mut self.frontend
    }

    pub fn negotiated(&self) -> Negotiated {
        self.negotiated
    }

    pub fn memory(&self) -> &Rc<Memory> {
        &self.memory
    }

    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    pub fn queue(&self, index: usize) -> &Queue {
        &self.queues[index]
    }

    pub fn queue_mut(&mut self, index: usize) -> &mut Queue {
        &mut self.queues[index]
    }

    /// Ends the connection; the queues and the memory stay as they are.
    pub fn disconnect(self) -> (Rc<Memory>, Vec<Queue>) {
        (self.memory, self.queues)
    }

    /// The same with queues that were another connection's.
    pub fn with_queues(mut self, queues: Vec<Queue>) -> Self {
        self.queues = queues;
        self
    }

    /// Puts an empty ring of `size` descriptors, elsewhere in memory, in the place of queue
    /// `index`, which has been stopped. The backend is told by [`restart`](Self::restart).
    pub fn renew_queue(&mut self, index: usize, size: u16) -> Result<(), DriverError> {
        let features = self.negotiated.of_queues();
        let queue = Queue::new(&self.memory, index, size, features)?;
        let (log, patience) = (self.frontend.log(), self.frontend.patience());
        self.queues[index] = queue.with_log(log.clone()).with_patience(patience.clone());
        Ok(())
    }

    /// Submits a request on queue `index` and waits until it comes back.
    pub fn run(&mut self, index: usize, buffers: &Buffers) -> Result<Used, DriverError> {
        self.queues[index].run(buffers.chain())
    }

    /// Tells the backend of all memory: region by region if it takes that, else at once.
    pub fn share_memory(&mut self) -> Result<(), DriverError> {
        let memory = Rc::clone(&self.memory);
        if self.negotiated.has_protocol(Protocol::CONFIGURE_MEM_SLOTS) {
            for index in 0..memory.table().len() {
                self.add_region(&memory, index)?;
            }
            return Ok(());
        }
        self.set_memory_table(&memory)
    }

    pub fn set_memory_table(&mut self, memory: &Memory) -> Result<(), DriverError> {
        let (regions, files) = memory.table().into_iter().unzip();
        self.frontend.execute(&SetMemTable { regions, files })
    }

    /// Tells the backend of region `index` of a memory.
    pub fn add_region(&mut self, memory: &Memory, index: usize) -> Result<(), DriverError> {
        let (region, file) = memory.table()[index];
        let payload = vhost::vhost_user::message::VhostUserSingleMemoryRegion::new(
            region.guest_phys_addr,
            region.memory_size,
            region.user_addr,
            region.mmap_offset,
        );
        self.frontend.execute(&AddMemoryRegion { payload, file })
    }

    /// How the document names a place in guest memory to this backend.
    pub fn ring_address(&self, addr: u64) -> u64 {
        if self.negotiated.has_protocol(Protocol::GPA_ADDRESSES) {
            addr
        } else {
            self.memory.user(addr)
        }
    }

    pub fn set_num(&mut self, index: usize) -> Result<(), DriverError> {
        let num = self.queues[index].size().into();
        let state = VhostUserVringState::new(index as u32, num);
        self.frontend.execute(&SetVringNum(state))
    }

    pub fn set_base(&mut self, index: usize, base: u32) -> Result<(), DriverError> {
        let state = VhostUserVringState::new(index as u32, base);
        self.frontend.execute(&SetVringBase(state))
    }

    pub fn set_addr(&mut self, index: usize) -> Result<(), DriverError> {
        let address = self.vring_addr(index, VhostUserVringAddrFlags::empty(), 0);
        self.frontend.execute(&SetVringAddr(address))
    }

    /// The addresses of a ring; `log` is where its used ring is logged.
    pub fn vring_addr(
        &self,
        index: usize,
        flags: VhostUserVringAddrFlags,
        log: u64,
    ) -> VhostUserVringAddr {
        let places = self.queues[index].places();
        let [descriptors, used, available] =
            [places.descriptors, places.device, places.driver].map(|at| self.ring_address(at));
        VhostUserVringAddr::new(index as u32, flags, descriptors, used, available, log)
    }

    pub fn set_call(&mut self, index: usize) -> Result<(), DriverError> {
        let file = self.queues[index].call_event().as_fd();
        let payload = with_file(index);
        self.frontend.execute(&SetVringCall { payload, file })
    }

    pub fn set_err(&mut self, index: usize) -> Result<(), DriverError> {
        let file = self.queues[index].err_event().as_fd();
        let payload = with_file(index);
        self.frontend.execute(&SetVringErr { payload, file })
    }

    /// Starts the ring.
    pub fn set_kick(&mut self, index: usize) -> Result<(), DriverError> {
        let file = self.queues[index].kick_event().as_fd();
        let payload = with_file(index);
        self.frontend.execute(&SetVringKick { payload, file })
    }

    /// Nothing is sent where the backend has no protocol features: the ring is enabled then.
    pub fn enable(&mut self, index: usize, on: bool) -> Result<(), DriverError> {
        if !self.negotiated.has(VHOST_USER_F_PROTOCOL_FEATURES) {
            return Ok(());
        }
        let state = VhostUserVringState::new(index as u32, on.into());
        self.frontend.execute(&SetVringEnable(state))
    }

    /// Stops the ring; returns its base.
    pub fn stop(&mut self, index: usize) -> Result<u32, DriverError> {
        let state = VhostUserVringState::new(index as u32, 0);
        Ok(self.frontend.request(&GetVringBase(state))?.num)
    }

    /// Says that the driver is set up and ready, where STATUS is negotiated.
    pub fn report_driver_ok(&mut self) -> Result<(), DriverError> {
        if !self.negotiated.has_protocol(Protocol::STATUS) {
            return Ok(());
        }
        self.frontend.execute(&SetStatus(READY))
    }

    /// Starts a stopped ring at `base`, with event descriptors of its own.
    pub fn restart(&mut self, index: usize, base: u32) -> Result<(), DriverError> {
        self.queues[index].renew_events()?;
        self.set_num(index)?;
        self.set_base(index, base)?;
        self.set_addr(index)?;
        self.set_call(index)?;
        self.set_err(index)?;
        self.set_kick(index)?;
        self.enable(index, true)
    }
}

fn with_file(index: usize) -> VringFile {
    VringFile {
        index: index as u8,
        has_file: true,
    }
}
