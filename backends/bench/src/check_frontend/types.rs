//! What a check of a frontend is.

use vhost::vhost_user::message::FrontendReq;

use super::stage::Stage;
use crate::backend::{History, Seen};
use crate::check::{Fault, Heading, Level, Source, Verdict};

/// How a check finds out whether a frontend keeps its rule.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    /// Looks at what a frontend did while nothing was wrong: whatever was offered to it.
    Look(fn(&History) -> Verdict),
    /// Starts a frontend, and does something to it.
    Act(fn(&Stage) -> Verdict),
}

/// A rule, and the function that finds out whether a frontend keeps it.
#[derive(Clone, Copy, Debug)]
pub struct FrontendCheck {
    /// `theme.rule`.
    pub name: &'static str,
    pub level: Level,
    pub source: Source,
    /// What is demanded, in the words of the source as far as they serve.
    pub rule: &'static str,
    pub method: Method,
}

impl FrontendCheck {
    pub fn heading(&self) -> Heading {
        Heading {
            name: self.name,
            level: self.level,
            source: self.source,
            rule: self.rule,
        }
    }
}

/// Judges each message of these kinds. Without any, the rule does not apply.
pub fn each(
    history: &History,
    requests: &[FrontendReq],
    judge: impl Fn(&Seen) -> Verdict,
) -> Verdict {
    let mut is_any = false;
    for seen in history
        .seen()
        .iter()
        .filter(|seen| seen.is_one_of(requests))
    {
        is_any = true;
        judge(seen)?;
    }
    if is_any {
        return Ok(());
    }
    let names: Vec<String> = requests
        .iter()
        .map(|request| format!("{request:?}"))
        .collect();
    Err(Fault::skip(format!(
        "it sends no {}",
        names.join(" and no ")
    )))
}

/// Judges every message.
pub fn all(history: &History, judge: impl Fn(&Seen) -> Verdict) -> Verdict {
    history.seen().iter().try_for_each(judge)
}
