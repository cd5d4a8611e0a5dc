//! The driver of one backend in a replay.

use std::os::unix::net::UnixStream;
use std::rc::Rc;

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{
    GetConfig, GetFeatures, ResetDevice, SetConfig, SetFeatures, SetStatus,
};

use super::arena::Arena;
use super::compare::Answer;
use super::error::LaneError;
use super::survey::Survey;
use super::traffic::Traffic;
use crate::driver::{
    DriverError, Format, Frontend, Layout, Memory, PAGE, Queue, QueueFeatures, Session, Setup,
};
use crate::recording::{Config, Start, Submit};
use crate::target::{Instance, Target};

const RING_PACKED: u64 = 1 << 34;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const IN_ORDER: u64 = 1 << 35;
/// Without these the driver's requests would have another form than the recorded ones.
const NEEDED: u64 = RING_PACKED | VERSION_1 | INDIRECT_DESC;

/// What the set-up has said: ACKNOWLEDGE, DRIVER and FEATURES_OK (virtio 1.4, section 2.1).
const SET_UP: u64 = 1 | 2 | 8;

/// One backend.
pub struct Lane {
    /// What it is called.
    name: &'static str,
    target: Target,
    survey: Survey,
    instance: Option<Instance>,
    /// A connection without features.
    stream: Option<UnixStream>,
    session: Option<Session>,
    traffic: Traffic,
    protocol: u64,
    features: u64,
    offered: u64,
    status: u64,
}

impl Lane {
    pub fn new(name: &'static str, target: Target, survey: &Survey) -> Self {
        Self {
            name,
            target,
            survey: survey.clone(),
            instance: None,
            stream: None,
            session: None,
            traffic: Traffic::default(),
            protocol: 0,
            features: 0,
            offered: 0,
            status: 0,
        }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The last lines that the backend printed, if it is a process of ours.
    pub fn last_lines(&mut self) -> Vec<String> {
        let process = self.instance.as_mut().and_then(Instance::process);
        process
            .map(|process| process.last_lines())
            .unwrap_or_default()
    }

    pub fn connect(&mut self) -> Result<(), LaneError> {
        self.disconnect();
        if !self.target.reconnects() {
            self.instance = None;
        }
        let instance = match &mut self.instance {
            Some(instance) => instance,
            none => none.insert(self.target.start()?),
        };
        self.stream = Some(instance.connect()?.ok_or(LaneError::OneConnection)?);
        (self.protocol, self.features, self.status) = (0, 0, 0);
        Ok(())
    }

    pub fn disconnect(&mut self) {
        (self.session, self.stream) = (None, None);
        self.traffic = Traffic::default();
    }

    pub fn is_set_up(&self) -> bool {
        self.session.is_some()
    }

    pub fn set_protocol_features(&mut self, features: u64) {
        self.protocol = features;
    }

    /// Negotiates the recorded features, as far as the backend has them. Returns those that it
    /// has not.
    pub fn set_features(&mut self, features: u64) -> Result<u64, LaneError> {
        match self.stream.take() {
            Some(stream) => self.set_up(stream, features)?,
            None => {
                let accepted = features & self.offered;
                let session = self.session.as_mut().ok_or(LaneError::NoSession)?;
                session.frontend().execute(&SetFeatures(accepted))?;
            }
        }
        self.features = features & self.offered;
        let missing = features & !self.offered;
        if missing & NEEDED != 0 {
            let names = vhost_user_wire::features::names(missing & NEEDED, &[]);
            return Err(LaneError::NotOffered(names.join(", ")));
        }
        Ok(missing)
    }

    fn set_up(&mut self, stream: UnixStream, features: u64) -> Result<(), LaneError> {
        let same = Protocol::MQ | Protocol::CONFIG | Protocol::RESET_DEVICE | Protocol::STATUS;
        let same = same.bits() & self.protocol;
        let wanted = Protocol::from_bits_retain(same | Protocol::REPLY_ACK.bits());
        let (rings, buffers) = self.room();
        let layout = Layout::new(0, rings + buffers);
        let memory = Rc::new(Memory::new(&[layout])?);
        let setup = Setup::default()
            .only(features)
            .without_protocol(wanted.complement())
            .queues(0, 0)
            .shared_memory(&memory);
        let mut session = setup.prepare(Frontend::new(stream))?;
        self.offered = session.frontend().request(&GetFeatures)?;
        session.share_memory()?;
        let place = memory.take("buffers", buffers - 2 * PAGE, PAGE)?;
        memory.open(place);
        self.traffic = Traffic::new(Arena::new(place, buffers - 2 * PAGE));
        let queues = (0..self.survey.queues).map(|index| idle_queue(&memory, index));
        let queues = queues.collect::<Result<_, _>>()?;
        self.session = Some(session.with_queues(queues));
        self.status = SET_UP;
        Ok(())
    }

    /// Bytes for rings, and for buffers: with what is lost between pieces.
    fn room(&self) -> (u64, u64) {
        let idle = 4 * PAGE * self.survey.queues as u64;
        let rings = 2 * self.survey.rings + idle;
        let buffers = 2 * self.survey.buffers + (1 << 20);
        (rings.next_multiple_of(PAGE), buffers.next_multiple_of(PAGE))
    }

    fn session(&mut self) -> Result<&mut Session, LaneError> {
        self.session.as_mut().ok_or(LaneError::NoSession)
    }

    fn has(&self, feature: Protocol) -> bool {
        let negotiated = self.session.as_ref().map(Session::negotiated);
        negotiated.is_some_and(|negotiated| negotiated.has_protocol(feature))
    }

    pub fn set_status(&mut self, status: u64) -> Result<(), LaneError> {
        if !self.has(Protocol::STATUS) || status & !self.status == 0 && status != 0 {
            return Ok(());
        }
        self.status = status;
        self.session()?.frontend().execute(&SetStatus(status))?;
        Ok(())
    }

    pub fn reset(&mut self) -> Result<(), LaneError> {
        self.traffic.reset();
        self.status = 0;
        if self.has(Protocol::RESET_DEVICE) {
            self.session()?.frontend().execute(&ResetDevice)?;
        }
        Ok(())
    }

    /// As many bytes of the configuration space, if the backend has one.
    pub fn config(&mut self, size: u32) -> Result<Option<Vec<u8>>, LaneError> {
        if !self.has(Protocol::CONFIG) {
            return Ok(None);
        }
        let reply = self.session()?.frontend().request(&GetConfig { size })?;
        Ok(Some(reply.0))
    }

    pub fn write_config(&mut self, config: &Config) -> Result<(), LaneError> {
        if !self.has(Protocol::CONFIG) {
            return Ok(());
        }
        let message = SetConfig {
            offset: config.offset,
            data: &config.bytes,
        };
        self.session()?.frontend().execute(&message)?;
        Ok(())
    }

    pub fn start(&mut self, start: Start) -> Result<(), LaneError> {
        let features = QueueFeatures {
            format: match self.features & RING_PACKED {
                0 => Format::Split,
                _ => Format::Packed,
            },
            event_idx: self.features & EVENT_IDX != 0,
            in_order: self.features & IN_ORDER != 0,
        };
        let (traffic, session) = self.traffic()?;
        traffic.start(session, start, features)
    }

    pub fn enable(&mut self, queue: u8, on: bool) -> Result<(), LaneError> {
        match self.traffic() {
            Ok((traffic, session)) => traffic.enable(session, queue, on),
            // No ring runs.
            Err(_) => Ok(()),
        }
    }

    pub fn stop(&mut self, queue: u8) -> Result<(), LaneError> {
        match self.traffic() {
            Ok((traffic, session)) => traffic.stop(session, queue),
            // No ring runs.
            Err(_) => Ok(()),
        }
    }

    /// See [`Traffic::stage`].
    pub fn stage(&mut self, request: &Submit, is_external: bool) -> Result<(), LaneError> {
        let (traffic, session) = self.traffic()?;
        traffic.stage(session, request, is_external)
    }

    /// Makes available what is staged, and kicks if the device wants that.
    pub fn publish(&mut self, queue: u8) -> Result<(), LaneError> {
        let queue = self.session()?.queue_mut(queue.into());
        queue.publish()?;
        Ok(queue.kick_if_wanted()?)
    }

    /// The answer to a request; or why there is none.
    pub fn wait(&mut self, queue: u8, number: u64) -> Result<Answer, String> {
        let (traffic, session) = self.traffic().map_err(|error| error.to_string())?;
        traffic.wait(session, queue, number)
    }

    fn traffic(&mut self) -> Result<(&mut Traffic, &mut Session), LaneError> {
        let session = self.session.as_mut().ok_or(LaneError::NoSession)?;
        Ok((&mut self.traffic, session))
    }
}

/// In the place of one that the recording has not started.
fn idle_queue(memory: &Rc<Memory>, index: usize) -> Result<Queue, DriverError> {
    let features = QueueFeatures {
        format: Format::Split,
        event_idx: false,
        in_order: false,
    };
    Queue::new(memory, index, 2, features)
}
