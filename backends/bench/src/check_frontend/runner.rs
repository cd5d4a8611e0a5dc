//! Looks at a frontend, and runs one check after another.

use std::time::{Duration, Instant};

use super::offers;
use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{
    FrontendSource, History, Limits, Milestone, Observation, Offer, Script, SourceError,
};
use crate::check::{Failure, Fault, Finding, Outcome, Subject, Verdict};
use crate::device::DeviceType;

/// A frontend that is to be checked.
#[derive(Debug)]
pub struct FrontendRunner {
    source: FrontendSource,
    device_type: DeviceType,
    /// With all that can be offered.
    baseline: Observation,
    /// With less of it, or with more.
    others: Vec<Observation>,
}

/// How long a frontend is watched when nothing is wrong.
const WATCH: Limits = Limits {
    goal: Milestone::Completed,
    linger: Duration::from_secs(3),
    idle: Duration::from_secs(10),
    total: Duration::from_secs(30),
};
/// The same where somebody else ends it.
const FOREVER: Limits = Limits {
    goal: Milestone::Never,
    linger: Duration::MAX,
    idle: Duration::MAX,
    total: Duration::MAX,
};

impl FrontendRunner {
    /// Looks at what the frontend does when nothing is wrong: once with everything offered, and,
    /// where it can be started again, with other offers.
    pub fn new(source: FrontendSource, device_type: DeviceType) -> Result<Self, SourceError> {
        Self::watching(source, device_type, WATCH.linger)
    }

    /// The same for a frontend that has done what it does so long after its first request.
    pub fn watching(
        source: FrontendSource,
        device_type: DeviceType,
        linger: Duration,
    ) -> Result<Self, SourceError> {
        let watch = Limits { linger, ..WATCH };
        let limits = if source.restarts() { watch } else { FOREVER };
        let mut offer = Offer::of(device_type);
        if !source.restarts() {
            // There will be no other look at it.
            offer = offers::greater(&offer);
        }
        let baseline = source.observe(&offer, Script::default(), &limits)?;
        let mut runner = Self {
            source,
            device_type,
            baseline,
            others: Vec::new(),
        };
        if runner.source.restarts() {
            let stage = runner.stage();
            let offers = offers::others(&stage.offer()).into_iter();
            // One that ends with an error where something is missing has said nothing wrong.
            let seen = offers.filter_map(|offer| stage.play(&offer, Script::default()).ok());
            runner.others = seen.collect();
        }
        Ok(runner)
    }

    fn stage(&self) -> Stage<'_> {
        Stage::new(&self.source, self.device_type, &self.baseline)
    }

    pub fn run(&self, check: &FrontendCheck) -> Finding {
        let begun = Instant::now();
        let outcome = match check.method {
            Method::Look(judge) => self.look(judge),
            Method::Act(_) if !self.source.restarts() => {
                Outcome::Skip("the frontend is not this program's to start (--exec)".into())
            }
            Method::Act(run) => {
                let stage = self.stage();
                let verdict = run(&stage);
                if let Some(reason) = stage.not_started() {
                    return finding(check, Outcome::Untried(reason), begun);
                }
                let (messages, output) = stage.last();
                outcome(verdict, || (messages, output))
            }
        };
        finding(check, outcome, begun)
    }

    /// The first observation that shows a fault counts; then one that shows the rule kept.
    fn look(&self, judge: fn(&History) -> Verdict) -> Outcome {
        let mut best = None;
        for seen in std::iter::once(&self.baseline).chain(&self.others) {
            let found = outcome(judge(&seen.history), || {
                (seen.log.entries(), seen.output.clone())
            });
            match (&found, &best) {
                (Outcome::Fail(_), _) => return found,
                (Outcome::Pass, _) | (_, None) => best = Some(found),
                (Outcome::Skip(_) | Outcome::Untried(_), Some(_)) => {}
            }
        }
        best.unwrap_or(Outcome::Pass)
    }
}

impl Subject for FrontendRunner {
    fn target(&self) -> String {
        self.source.to_string()
    }

    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn seed(&self) -> Option<u64> {
        None
    }
}

fn finding(check: &FrontendCheck, outcome: Outcome, begun: Instant) -> Finding {
    Finding {
        check: check.heading(),
        outcome,
        time: begun.elapsed(),
    }
}

fn outcome(
    verdict: Verdict,
    evidence: impl FnOnce() -> (Vec<crate::driver::Entry>, Vec<String>),
) -> Outcome {
    let found = match verdict {
        Ok(()) => return Outcome::Pass,
        Err(Fault::Skip(reason)) => return Outcome::Skip(reason),
        Err(Fault::Broken(found)) => found,
        Err(Fault::Driver(error)) => host_io::errors::chain(&error),
    };
    let (messages, output) = evidence();
    Outcome::Fail(Box::new(Failure {
        found,
        messages,
        output,
    }))
}
