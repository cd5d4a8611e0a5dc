//! What a check of a frontend has to work with.

use std::cell::RefCell;
use std::time::Duration;

use vhost::vhost_user::message::FrontendReq;

use crate::backend::{Act, FrontendSource, History, Limits, Observation, Offer, Question, Script};
use crate::check::Fault;
use crate::device::DeviceType;
use crate::driver::Entry;
use crate::target::Exit;

/// How long a frontend is watched that has come as far as it should.
const LINGER: Duration = Duration::from_millis(500);
/// The same where it was asked something.
const LISTEN: Duration = Duration::from_millis(1500);
/// How much longer than before it may take to get there.
const MORE: Duration = Duration::from_secs(3);

/// A frontend that can be started as often as a check wants. It keeps what the last one did.
#[derive(Debug)]
pub struct Stage<'a> {
    source: &'a FrontendSource,
    device_type: DeviceType,
    baseline: &'a Observation,
    last: RefCell<(Vec<Entry>, Vec<String>)>,
    not_started: RefCell<Option<String>>,
}

impl<'a> Stage<'a> {
    pub fn new(
        source: &'a FrontendSource,
        device_type: DeviceType,
        baseline: &'a Observation,
    ) -> Self {
        Self {
            source,
            device_type,
            baseline,
            last: RefCell::default(),
            not_started: RefCell::default(),
        }
    }

    /// What the frontend did when nothing was wrong.
    pub fn baseline(&self) -> &History {
        &self.baseline.history
    }

    /// Whether the frontend ends when it is asked to, while nothing is wrong.
    pub fn ends(&self) -> bool {
        !self.baseline.is_stuck
    }

    pub fn offer(&self) -> Offer {
        Offer::of(self.device_type)
    }

    /// Messages and lines of the last frontend.
    pub fn last(&self) -> (Vec<Entry>, Vec<String>) {
        self.last.take()
    }

    /// Why a frontend could not be started, or did not connect, if that was so.
    pub fn not_started(&self) -> Option<String> {
        self.not_started.borrow().clone()
    }

    /// Starts a frontend and serves it by a script, until it has come as far as when nothing was
    /// wrong. A crash fails any check.
    pub fn play(&self, offer: &Offer, script: Script) -> Result<Observation, Fault> {
        let time = self.baseline.time + MORE;
        let limits = Limits {
            goal: self.baseline.history.milestone(),
            linger: if script.question.is_some() {
                LISTEN
            } else {
                LINGER
            },
            idle: time,
            total: 2 * time,
        };
        let seen = self.source.observe(offer, script, &limits);
        let seen = seen.map_err(|error| {
            let reason = host_io::errors::chain(&error);
            self.not_started.replace(Some(reason.clone()));
            Fault::skip(reason)
        })?;
        self.last.replace((seen.log.entries(), seen.output.clone()));
        match crash(&seen) {
            Some(exit) => Err(Fault::broken(format!("the frontend crashed ({exit})"))),
            None => Ok(seen),
        }
    }

    /// Does something to the first message of a kind.
    pub fn act(&self, request: FrontendReq, act: Act) -> Result<Observation, Fault> {
        if !self.baseline().has(request) {
            return Err(Fault::skip(format!("it sends no {request:?}")));
        }
        self.run(Script::at(request, act), || {
            format!("{request:?} wants no answer")
        })
    }

    /// Asks something on the backend's channel.
    pub fn ask(&self, question: Question) -> Result<Observation, Fault> {
        if !self.baseline().has(FrontendReq::SET_BACKEND_REQ_FD) {
            return Err(Fault::skip("it has no channel for the backend's requests"));
        }
        self.ask_with(&self.offer(), question)
    }

    /// The same by a backend that offers something else.
    pub fn ask_with(&self, offer: &Offer, question: Question) -> Result<Observation, Fault> {
        self.run_with(offer, Script::ask(question), || "nothing was asked".into())
    }

    /// Plays a script that has to have an effect.
    pub fn run(
        &self,
        script: Script,
        reason: impl FnOnce() -> String,
    ) -> Result<Observation, Fault> {
        self.run_with(&self.offer(), script, reason)
    }

    fn run_with(
        &self,
        offer: &Offer,
        script: Script,
        reason: impl FnOnce() -> String,
    ) -> Result<Observation, Fault> {
        let seen = self.play(offer, script)?;
        if seen.history.has_acted() {
            return Ok(seen);
        }
        Err(Fault::skip(reason()))
    }
}

/// How a frontend crashed, if it did.
fn crash(seen: &Observation) -> Option<Exit> {
    seen.exit.filter(|exit| exit.is_crash())
}
