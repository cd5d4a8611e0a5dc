//! How a frontend has come through.

use super::stage::Stage;
use crate::backend::{Milestone, Observation};
use crate::check::{Fault, Verdict, demand};

/// It has not crashed, by which every run fails, and ends when it is asked to.
pub fn survives(stage: &Stage, seen: &Observation) -> Verdict {
    if seen.is_stuck && !stage.ends() {
        let reason = "SIGTERM does not end it while nothing is wrong either";
        return Err(Fault::skip(reason));
    }
    demand(!seen.is_stuck, || {
        "it did not end within some seconds of SIGTERM".into()
    })
}

/// It has come as far as when nothing was wrong.
pub fn gets_on(stage: &Stage, seen: &Observation) -> Verdict {
    let (got, want) = (seen.history.milestone(), stage.baseline().milestone());
    if got >= want {
        return Ok(());
    }
    Err(Fault::broken(format!(
        "it came as far as {}, and otherwise to {}",
        name(got),
        name(want)
    )))
}

fn name(milestone: Milestone) -> &'static str {
    match milestone {
        Milestone::Connected => "a connection",
        Milestone::Negotiated => "SET_FEATURES",
        Milestone::Shared => "guest memory",
        Milestone::Started => "the start of a ring",
        Milestone::Completed | Milestone::Never => "a request",
    }
}
