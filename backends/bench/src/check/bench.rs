//! What a check has to work with.

use std::cell::{Cell, RefCell};

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::frontend::{
    GetFeatures, GetProtocolFeatures, GetQueueNum, SetOwner, SetProtocolFeatures,
};

use super::processes::{Ended, Processes};
use crate::device::{DeviceType, Sample, features_on_demand, least_queues, sample};
use crate::driver::{Buffers, DriverError, Frontend, MessageLog, Patience, Session, Setup, Used};
use crate::target::Target;

/// What a backend offers, as it said when it was asked first.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    pub device_type: DeviceType,
    pub features: u64,
    pub protocol: u64,
    /// Queues that it has; those that every device of the type has where it does not say.
    pub queues: usize,
}

impl Profile {
    /// Asks a backend.
    pub fn ask(frontend: &mut Frontend, device_type: DeviceType) -> Result<Self, DriverError> {
        frontend.send(&SetOwner)?;
        let features = frontend.request(&GetFeatures)?;
        let mut profile = Self {
            device_type,
            features,
            protocol: 0,
            queues: least_queues(device_type),
        };
        if !profile.has(VHOST_USER_F_PROTOCOL_FEATURES) {
            return Ok(profile);
        }
        profile.protocol = frontend.request(&GetProtocolFeatures)?;
        if profile.has_protocol(Protocol::MQ) {
            frontend.send(&SetProtocolFeatures(Protocol::MQ.bits()))?;
            profile.queues = frontend.request(&GetQueueNum)? as usize;
        }
        Ok(profile)
    }

    /// Queues that every device of the type has.
    pub fn least_queues(&self) -> usize {
        least_queues(self.device_type)
    }

    pub fn has(&self, feature: u32) -> bool {
        self.features & 1 << feature != 0
    }

    pub fn has_protocol(&self, feature: Protocol) -> bool {
        self.protocol & feature.bits() == feature.bits()
    }
}

/// One check's access to the backend. Everything that is sent and received goes into one log.
#[derive(Debug)]
pub struct Bench<'a> {
    profile: &'a Profile,
    log: MessageLog,
    patience: Patience,
    processes: RefCell<Processes<'a>>,
    random: Cell<u64>,
}

impl<'a> Bench<'a> {
    pub fn new(
        target: &'a Target,
        profile: &'a Profile,
        reconnects: bool,
        patience: &Patience,
        seed: u64,
    ) -> Self {
        Self {
            profile,
            log: MessageLog::new(Some(profile.device_type)),
            patience: patience.clone(),
            processes: RefCell::new(Processes::new(target, reconnects, patience.clone())),
            random: Cell::new(seed),
        }
    }

    pub fn profile(&self) -> &Profile {
        self.profile
    }

    pub fn log(&self) -> &MessageLog {
        &self.log
    }

    /// A connection on which nothing has been sent: the next one to the process of this check, or
    /// the first one to another process, where one process serves one connection.
    pub fn connect(&self) -> Result<Frontend, DriverError> {
        let connected = self.processes.borrow_mut().connect();
        let stream = connected.map_err(|error| DriverError::Connect(error.into()))?;
        let frontend = Frontend::with_log(stream, self.log.clone());
        Ok(frontend.with_patience(self.patience.clone()))
    }

    /// Kills the backend's process, if it is this program's. The next connection is to another.
    pub fn kill(&self) {
        if self.processes.borrow_mut().kill() {
            self.log.event("the backend is killed (SIGKILL)");
        }
    }

    /// Ends the process of this check; says how those that it had have ended.
    pub fn finish(&self) -> Ended {
        self.processes.borrow_mut().finish()
    }

    /// A set-up with the queues that every device of the type has, without features that need
    /// more of a driver than these queues.
    pub fn setup(&self) -> Setup {
        let kind = self.profile.device_type;
        let setup = Setup::default().without(features_on_demand(kind));
        setup.queues(least_queues(kind), 64)
    }

    /// Connects and sets up.
    pub fn start(&self, setup: &Setup) -> Result<Session, DriverError> {
        setup.start(self.connect()?)
    }

    /// The request of this device's type that completes by itself. Checks that use it need
    /// [`Need::Sample`](super::Need::Sample).
    pub fn sample(&self) -> Sample {
        let known = sample(self.profile.device_type);
        known.unwrap_or(Sample {
            queue: 0,
            readable: Vec::new(),
            writable: 0,
            judge: |_| Ok(()),
            repeats: false,
        })
    }

    /// Puts the sample's buffers into the session's memory.
    pub fn place(&self, session: &Session) -> Result<Buffers, DriverError> {
        let sample = self.sample();
        Buffers::place(session.memory(), &sample.readable, sample.writable)
    }

    /// Runs the sample on its queue, and judges the answer.
    pub fn run_sample(&self, session: &mut Session) -> Result<Used, DriverError> {
        let buffers = self.place(session)?;
        let used = session.run(self.sample().queue, &buffers)?;
        self.judge(session, &buffers, used)?;
        Ok(used)
    }

    /// Judges the answer to a sample.
    pub fn judge(
        &self,
        session: &Session,
        buffers: &Buffers,
        used: Used,
    ) -> Result<(), DriverError> {
        let sample = self.sample();
        let answer = buffers.finish(session.memory())?;
        let len = used.len.unwrap_or(sample.writable) as usize;
        let wrote = answer.get(..len).unwrap_or(&answer);
        (sample.judge)(wrote).map_err(|what| DriverError::Ring {
            queue: sample.queue,
            what: format!("a request was not answered well: {what}"),
        })
    }

    /// A number below `bound`, by the seed of this run.
    pub fn random(&self, bound: u64) -> u64 {
        // SplitMix64.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}
