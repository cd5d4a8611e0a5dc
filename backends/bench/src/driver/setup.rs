//! The set-up of a connection, in the order in which QEMU does it.

use std::rc::Rc;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::frontend::{
    GetFeatures, GetProtocolFeatures, SetFeatures, SetOwner, SetProtocolFeatures, SetStatus,
};
use virtio_bindings::virtio_config::{
    VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::error::DriverError;
use super::frontend::Frontend;
use super::memory::{Layout, Memory};
use super::queue::Queue;
use super::ring::Format;
use super::session::{Negotiated, Session};

/// A step that may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Owner,
    Features,
    /// ACKNOWLEDGE, DRIVER and FEATURES_OK, where STATUS is negotiated.
    Status,
    Memory,
    Num,
    Base,
    Addr,
    Call,
    Err,
    /// SET_VRING_KICK, which starts the ring.
    Kick,
    /// A write to the kick descriptor once the ring is set up: drivers may have made buffers
    /// available before, and some backends start on it.
    FirstKick,
    Enable,
    /// DRIVER_OK, where STATUS is negotiated.
    DriverOk,
}

/// ACKNOWLEDGE, DRIVER and FEATURES_OK of a device's status (virtio 1.4, section 2.1).
const SET_UP: u64 = 1 | 2 | 8;

/// Features of all devices that are accepted where they are offered, and need nothing of a
/// driver that this one does not do. The others have to be asked for.
const COMMON: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VHOST_USER_F_PROTOCOL_FEATURES
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_F_RING_RESET;

/// Bits that belong to the type of the device (virtio 1.4, section 2.2), but 17, which for a
/// block device means zones.
const OF_TYPE: u64 = 0x00fd_ffff | 0xfffc << 48;

/// Protocol features that are accepted likewise.
const PROTOCOL: Protocol = Protocol::MQ
    .union(Protocol::REPLY_ACK)
    .union(Protocol::CONFIG)
    .union(Protocol::RESET_DEVICE)
    .union(Protocol::STATUS);

/// What is to be set up, and how.
#[derive(Clone, Debug)]
pub struct Setup {
    without: u64,
    wanted: u64,
    required: u64,
    protocol_without: u64,
    protocol_required: u64,
    layouts: Vec<Layout>,
    memory: Option<Rc<Memory>>,
    /// Sizes in descriptors.
    queues: Vec<u16>,
    format: Format,
    base: u32,
    left_out: Vec<Step>,
}

impl Default for Setup {
    /// One split queue of 64 descriptors, and a MiB of memory.
    fn default() -> Self {
        Self {
            without: 0,
            wanted: 0,
            required: 0,
            protocol_without: 0,
            protocol_required: 0,
            layouts: vec![Layout::new(0, 1 << 20)],
            memory: None,
            queues: vec![64],
            format: Format::Split,
            base: 0,
            left_out: Vec::new(),
        }
    }
}

impl Setup {
    /// Does not accept the features with these numbers.
    pub fn without(mut self, features: &[u32]) -> Self {
        self.without |= mask(features);
        self
    }

    /// Accepts these, and fails where they are not offered.
    pub fn require(mut self, features: &[u32]) -> Self {
        self.required |= mask(features);
        self
    }

    /// Accepts those of these that are offered, and nothing else but what is required.
    pub fn only(mut self, features: u64) -> Self {
        (self.without, self.wanted) = (!0, features);
        self
    }

    /// Accepts what is required, and nothing else.
    pub fn only_required(mut self) -> Self {
        self.without = !self.required;
        self
    }

    pub fn without_protocol(mut self, features: Protocol) -> Self {
        self.protocol_without |= features.bits();
        self
    }

    pub fn require_protocol(mut self, features: Protocol) -> Self {
        self.protocol_required |= features.bits();
        self
    }

    /// Packed rings need RING_PACKED.
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        match format {
            Format::Split => self,
            Format::Packed => self.require(&[VIRTIO_F_RING_PACKED]),
        }
    }

    /// Memory of these regions.
    pub fn memory(mut self, layouts: &[Layout]) -> Self {
        self.layouts = layouts.to_vec();
        self
    }

    /// Memory that there is already.
    pub fn shared_memory(mut self, memory: &Rc<Memory>) -> Self {
        self.memory = Some(Rc::clone(memory));
        self
    }

    /// As many queues, each of `size` descriptors.
    pub fn queues(mut self, count: usize, size: u16) -> Self {
        self.queues = vec![size; count];
        self
    }

    /// All queues of another size.
    pub fn queue_size(mut self, size: u16) -> Self {
        self.queues.fill(size);
        self
    }

    /// All rings begin there, as SET_VRING_BASE has it.
    pub fn base(mut self, base: u32) -> Self {
        self.base = base;
        self
    }

    pub fn leave_out(mut self, step: Step) -> Self {
        self.left_out.push(step);
        self
    }

    fn does(&self, step: Step) -> bool {
        !self.left_out.contains(&step)
    }

    /// Negotiates features, and sets up memory and queues.
    pub fn start(&self, frontend: Frontend) -> Result<Session, DriverError> {
        let mut session = self.prepare(frontend)?;
        if self.does(Step::Memory) {
            session.share_memory()?;
        }
        for index in 0..self.queues.len() {
            self.start_queue(&mut session, index)?;
        }
        if self.does(Step::DriverOk) {
            session.report_driver_ok()?;
        }
        if self.does(Step::FirstKick) && self.does(Step::Kick) {
            session.queues().iter().for_each(Queue::kick);
        }
        Ok(session)
    }

    /// Negotiates features, and makes memory and queues that the backend is not told of.
    pub fn prepare(&self, mut frontend: Frontend) -> Result<Session, DriverError> {
        let negotiated = self.negotiate(&mut frontend)?;
        let memory = match &self.memory {
            Some(memory) => Rc::clone(memory),
            None => Rc::new(Memory::new(&self.layouts)?),
        };
        let features = negotiated.of_queues();
        let mut queues = Vec::new();
        for (index, size) in self.queues.iter().enumerate() {
            let log = frontend.log().clone();
            let patience = frontend.patience().clone();
            let queue = Queue::new(&memory, index, *size, features)?;
            let mut queue = queue.with_log(log).with_patience(patience);
            if self.base != 0 {
                queue.rebase(self.base)?;
            }
            queues.push(queue);
        }
        Ok(Session::new(frontend, negotiated, memory, queues))
    }

    /// Protocol features come first: the reply to SET_FEATURES may depend on them.
    fn negotiate(&self, frontend: &mut Frontend) -> Result<Negotiated, DriverError> {
        if self.does(Step::Owner) {
            frontend.send(&SetOwner)?;
        }
        let offered = frontend.request(&GetFeatures)?;
        let wanted = (COMMON | OF_TYPE) & !self.without | self.wanted | self.required;
        let features = offered & wanted;
        if self.required & !offered != 0 {
            return Err(DriverError::NotOffered("a feature that this needs"));
        }
        let mut protocol = 0;
        if features & 1 << VHOST_USER_F_PROTOCOL_FEATURES != 0 {
            protocol = self.negotiate_protocol(frontend)?;
        }
        let negotiated = Negotiated { features, protocol };
        frontend.set_acks(negotiated.has_protocol(Protocol::REPLY_ACK));
        if self.does(Step::Features) {
            frontend.execute(&SetFeatures(features))?;
        }
        if self.does(Step::Status) && negotiated.has_protocol(Protocol::STATUS) {
            frontend.execute(&SetStatus(SET_UP))?;
        }
        Ok(negotiated)
    }

    fn negotiate_protocol(&self, frontend: &mut Frontend) -> Result<u64, DriverError> {
        let offered = frontend.request(&GetProtocolFeatures)?;
        if self.protocol_required & !offered != 0 {
            return Err(DriverError::NotOffered(
                "a protocol feature that this needs",
            ));
        }
        let wanted = PROTOCOL.bits() & !self.protocol_without | self.protocol_required;
        frontend.send(&SetProtocolFeatures(offered & wanted))?;
        Ok(offered & wanted)
    }

    fn start_queue(&self, session: &mut Session, index: usize) -> Result<(), DriverError> {
        use Step::{Addr, Base, Call, Enable, Err, Kick, Num};
        for step in [Num, Base, Addr, Call, Err, Kick, Enable] {
            if self.does(step) {
                self.act(session, step, index)?;
            }
        }
        Ok(())
    }

    fn act(&self, session: &mut Session, step: Step, index: usize) -> Result<(), DriverError> {
        match step {
            Step::Num => session.set_num(index),
            // Of a packed ring that is not 0: its wrap counters begin with 1.
            Step::Base => session.set_base(index, session.queue(index).base()),
            Step::Addr => session.set_addr(index),
            Step::Call => session.set_call(index),
            Step::Err => session.set_err(index),
            Step::Kick => session.set_kick(index),
            Step::Enable => session.enable(index, true),
            _ => Ok(()),
        }
    }
}

fn mask(features: &[u32]) -> u64 {
    features.iter().fold(0, |mask, feature| mask | 1 << feature)
}
