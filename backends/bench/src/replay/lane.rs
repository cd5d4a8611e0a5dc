//! The driver of one backend in a replay.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{
    GetConfig, GetFeatures, ResetDevice, SetConfig, SetFeatures, SetStatus,
};

use super::arena::Arena;
use super::compare::Answer;
use super::requests::Requests;
use super::survey::Survey;
use crate::driver::{
    DEADLINE, DriverError, Format, Frontend, Layout, Memory, PAGE, Queue, QueueFeatures, Session,
    Setup, Used, wait_readable,
};
use crate::recording::{Config, Start, Submit};
use crate::target::{Instance, Target, TargetError};

const RING_PACKED: u64 = 1 << 34;
const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const IN_ORDER: u64 = 1 << 35;
/// Without these the driver's requests would have another form than the recorded ones.
const NEEDED: u64 = RING_PACKED | VERSION_1 | INDIRECT_DESC;

/// What the set-up has said: ACKNOWLEDGE, DRIVER and FEATURES_OK (virtio 1.4, section 2.1).
const SET_UP: u64 = 1 | 2 | 8;

/// How often the connection is looked at while an answer is waited for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Driver(#[from] DriverError),
    #[error("it does not offer {0}, which the recorded driver used")]
    NotOffered(String),
    #[error("it serves one connection, and the recording has another; have it listen ({{socket}})")]
    OneConnection,
    #[error("the recording uses queues before features are negotiated")]
    NoSession,
    #[error("there is no room in the ring of queue {0}, where the recorded driver had some")]
    Full(u8),
    #[error("the driver's memory is too small")]
    MemoryFull,
}

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
    requests: Requests,
    protocol: u64,
    features: u64,
    offered: u64,
    status: u64,
    running: BTreeSet<u8>,
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
            requests: Requests::default(),
            protocol: 0,
            features: 0,
            offered: 0,
            status: 0,
            running: BTreeSet::new(),
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
        self.requests.forget(|_| true);
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
        self.requests = Requests::new(Arena::new(place, buffers - 2 * PAGE));
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
        self.running.clear();
        self.requests.forget(|_| true);
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
        let index = usize::from(start.queue);
        let session = self.session.as_mut().ok_or(LaneError::NoSession)?;
        let mut queue = Queue::new(session.memory(), index, start.size, features)?;
        // Nothing is in flight.
        let base = match features.format {
            Format::Split => start.base,
            Format::Packed => (start.base & 0xffff) | start.base << 16,
        };
        queue.rebase(base)?;
        *session.queue_mut(index) = queue;
        session.restart(index, base)?;
        session.queue(index).kick();
        self.running.insert(start.queue);
        Ok(())
    }

    pub fn enable(&mut self, queue: u8, on: bool) -> Result<(), LaneError> {
        if self.running.contains(&queue) {
            self.session()?.enable(queue.into(), on)?;
        }
        Ok(())
    }

    pub fn stop(&mut self, queue: u8) -> Result<(), LaneError> {
        if self.running.contains(&queue) {
            self.session()?.stop(queue.into())?;
            self.collect(queue)?;
            self.running.remove(&queue);
        }
        self.requests.forget(|placed| placed == queue);
        Ok(())
    }

    /// Puts a request into the ring, without making it available. Where nothing is an answer and
    /// the ring is full, there is one buffer less.
    pub fn stage(&mut self, request: &Submit, is_external: bool) -> Result<(), LaneError> {
        let needed = descriptors(request);
        if self.free_descriptors(request.queue)? < needed {
            self.collect(request.queue)?;
        }
        if self.free_descriptors(request.queue)? < needed {
            return match is_external {
                true => Ok(()),
                false => Err(LaneError::Full(request.queue)),
            };
        }
        let session = self.session.as_mut().ok_or(LaneError::NoSession)?;
        let placed = self
            .requests
            .place(session.memory(), request, is_external)?;
        let Some(chain) = placed else {
            return match is_external {
                true => Ok(()),
                false => Err(LaneError::MemoryFull),
            };
        };
        let id = session.queue_mut(request.queue.into()).stage(&chain)?;
        self.requests.staged(request.queue, id, request.number);
        Ok(())
    }

    fn free_descriptors(&mut self, queue: u8) -> Result<usize, LaneError> {
        Ok(self.session()?.queue(queue.into()).free())
    }

    /// Makes available what is staged, and kicks if the device wants that.
    pub fn publish(&mut self, queue: u8) -> Result<(), LaneError> {
        let queue = self.session()?.queue_mut(queue.into());
        queue.publish()?;
        Ok(queue.kick_if_wanted()?)
    }

    /// The answer to a request; or why there is none.
    pub fn wait(&mut self, queue: u8, number: u64) -> Result<Answer, String> {
        let end = Instant::now() + DEADLINE;
        loop {
            let looked = self.collect(queue);
            if let Some(answer) = self.requests.take(number) {
                return Ok(answer);
            }
            looked.map_err(|error| error.to_string())?;
            if Instant::now() >= end {
                return Err(format!("it did not come within {DEADLINE:?}"));
            }
            self.wait_for_any(queue)?;
        }
    }

    /// Waits until something may have come back, or for a while.
    fn wait_for_any(&mut self, queue: u8) -> Result<(), String> {
        let text = |error: DriverError| error.to_string();
        let session = self.session().map_err(|error| error.to_string())?;
        let waiting = session.queue_mut(queue.into());
        waiting.forget_notifications();
        waiting.set_notify(true).map_err(text)?;
        let used = match waiting.poll_used() {
            Ok(None) => waiting.wait_used_within(LOOK).map(Some),
            polled => polled,
        };
        match used {
            Ok(Some(used)) => {
                self.arrive(queue, used).map_err(text)?;
                Ok(())
            }
            Ok(None) | Err(DriverError::NotUsed { .. }) => {
                // No backend says anything that it is not asked for on this socket.
                let stream = session.frontend().stream();
                let is_gone = wait_readable(stream, Duration::ZERO);
                let has_none = self.collect(queue).is_ok_and(|count| count == 0);
                match is_gone {
                    Ok(true) if has_none => Err("the backend has hung up".into()),
                    _ => Ok(()),
                }
            }
            Err(error) => Err(text(error)),
        }
    }

    /// Takes in what has come back; returns how many requests.
    fn collect(&mut self, queue: u8) -> Result<usize, LaneError> {
        let mut count = 0;
        while let Some(used) = self.session()?.queue_mut(queue.into()).poll_used()? {
            self.arrive(queue, used)?;
            count += 1;
        }
        Ok(count)
    }

    fn arrive(&mut self, queue: u8, used: Used) -> Result<(), DriverError> {
        match &self.session {
            Some(session) => {
                let memory = session.memory();
                self.requests.arrive(memory, queue, used.id, used.len)
            }
            None => Ok(()),
        }
    }
}

/// Of the ring's own.
fn descriptors(request: &Submit) -> usize {
    let direct = request.table_after.map(|before| usize::from(before) + 1);
    direct.unwrap_or(request.elements.len())
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
