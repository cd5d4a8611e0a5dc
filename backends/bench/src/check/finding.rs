//! What became of checks, and of what they were checks.

use std::time::Duration;

use super::types::Heading;
use crate::device::DeviceType;
use crate::driver::Entry;

/// What became of a check.
#[derive(Clone, Debug)]
pub enum Outcome {
    Pass,
    Fail(Box<Failure>),
    /// It does not apply, for this reason.
    Skip(String),
    /// It applies, but a process that it needs could not be started, for this reason.
    Untried(String),
}

/// What a person needs to know of a check that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub found: String,
    /// All that was sent and received.
    pub messages: Vec<Entry>,
    /// The last lines that the checked program printed, where this program has started it.
    pub output: Vec<String>,
}

/// A check with its outcome.
#[derive(Clone, Debug)]
pub struct Finding {
    pub check: Heading,
    pub outcome: Outcome,
    pub time: Duration,
}

/// A program that is checked.
pub trait Subject {
    /// Where it is, as options of a command line.
    fn target(&self) -> String;

    fn device_type(&self) -> DeviceType;

    /// What checks that act at random begin with, where there are such.
    fn seed(&self) -> Option<u64>;
}
