//! Runs one check after another.

use std::time::Instant;

use vhost_user_wire::frontend::GetFeatures;

use super::bench::{Bench, Profile};
use super::finding::{Failure, Finding, Outcome, Subject};
use super::processes::Ended;
use super::types::{Check, Fault, Need, Verdict};
use crate::device::{DeviceType, sample};
use crate::driver::{DriverError, Frontend, Patience};
use crate::target::{Exit, GRACE, Instance, Target, TargetError};

/// A backend that is to be checked.
#[derive(Debug)]
pub struct Runner {
    target: Target,
    profile: Profile,
    /// One process serves one connection after another.
    reconnects: bool,
    /// Of all checks together.
    patience: Patience,
    seed: u64,
}

/// Why nothing can be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    #[error("there is no backend")]
    Target(#[from] TargetError),
    #[error("the backend does not say what it offers, without which nothing can be checked")]
    Silent(#[source] DriverError),
}

impl Runner {
    /// Asks the backend what it offers.
    pub fn new(target: Target, device_type: DeviceType, seed: u64) -> Result<Self, RunnerError> {
        let mut instance = target.start()?;
        let stream = instance.connect()?;
        let stream = stream.ok_or(std::io::Error::from(std::io::ErrorKind::NotConnected));
        let mut frontend = Frontend::new(stream.map_err(TargetError::from)?);
        let profile = Profile::ask(&mut frontend, device_type).map_err(RunnerError::Silent)?;
        drop(frontend);
        let reconnects = target.reconnects() && serves_again(&mut instance);
        if let Some(process) = instance.process() {
            process.finish(GRACE);
        }
        Ok(Self {
            target,
            profile,
            reconnects,
            patience: Patience::default(),
            seed,
        })
    }

    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    pub fn run(&self, check: &Check) -> Finding {
        let begun = Instant::now();
        let outcome = match self.applies(check) {
            Err(reason) => Outcome::Skip(reason),
            Ok(()) => self.try_check(check),
        };
        Finding {
            check: check.heading(),
            outcome,
            time: begun.elapsed(),
        }
    }

    fn try_check(&self, check: &Check) -> Outcome {
        let bench = Bench::new(
            &self.target,
            &self.profile,
            self.reconnects,
            &self.patience,
            self.seed,
        );
        let verdict = (check.run)(&bench);
        let Ended {
            crash,
            not_started,
            output,
        } = bench.finish();
        if let (None, Some(reason)) = (crash, not_started) {
            return Outcome::Untried(reason);
        }
        match judge(verdict, crash) {
            Ok(()) => Outcome::Pass,
            Err(Fault::Skip(reason)) => Outcome::Skip(reason),
            Err(Fault::Broken(found)) => Outcome::Fail(Box::new(Failure {
                found,
                messages: bench.log().entries(),
                output,
            })),
            Err(Fault::Driver(error)) => Outcome::Fail(Box::new(Failure {
                found: host_io::errors::chain(&error),
                messages: bench.log().entries(),
                output,
            })),
        }
    }

    /// Whether the backend has what the check needs; why not.
    fn applies(&self, check: &Check) -> Result<(), String> {
        check.needs.iter().try_for_each(|need| self.has(*need))
    }

    fn has(&self, need: Need) -> Result<(), String> {
        let profile = &self.profile;
        let kind = profile.device_type;
        let known = sample(kind);
        let (holds, reason) = match need {
            Need::Feature(bit, name) => (profile.has(bit), format!("{name} is not offered")),
            Need::Protocol(feature) => (
                profile.has_protocol(feature),
                format!("protocol feature {} is not offered", names(feature.bits())),
            ),
            Need::Type(wanted) => (kind == wanted, format!("it is for {wanted} devices")),
            Need::Sample => (
                known.is_some(),
                format!("no request is known that a device of type {kind} completes by itself"),
            ),
            Need::Repeats => (
                known.is_some_and(|sample| sample.repeats),
                format!("devices of type {kind} do not answer a request twice alike"),
            ),
            Need::Queues(count) => (
                profile.queues >= count,
                format!(
                    "the backend has {} queues, and this needs {count}",
                    profile.queues
                ),
            ),
            Need::Restarts => (
                self.target.restarts(),
                "the backend is not this program's to kill (--exec)".to_owned(),
            ),
            Need::Reconnects => (
                self.reconnects,
                "the backend serves one connection only".into(),
            ),
        };
        if holds { Ok(()) } else { Err(reason) }
    }
}

impl Subject for Runner {
    fn target(&self) -> String {
        self.target.to_string()
    }

    fn device_type(&self) -> DeviceType {
        self.profile.device_type
    }

    fn seed(&self) -> Option<u64> {
        Some(self.seed)
    }
}

/// Whether a backend that has had a connection takes another. Some end by design, and the
/// document leaves that to them.
fn serves_again(instance: &mut Instance) -> bool {
    let Ok(Some(stream)) = instance.connect() else {
        return false;
    };
    Frontend::new(stream).request(&GetFeatures).is_ok()
}

fn names(bits: u64) -> String {
    vhost_user_wire::features::protocol_names(bits).join(", ")
}

/// A crash fails any check; and it is what explains most failures.
fn judge(verdict: Verdict, crash: Option<Exit>) -> Verdict {
    let Some(exit) = crash else {
        return verdict;
    };
    let found = match verdict {
        Ok(()) => String::new(),
        Err(Fault::Broken(found)) => format!("{found}; "),
        Err(Fault::Driver(error)) => format!("{}; ", host_io::errors::chain(&error)),
        Err(Fault::Skip(reason)) => format!("{reason}; "),
    };
    Err(Fault::Broken(format!(
        "{found}the backend's process crashed ({exit})"
    )))
}
