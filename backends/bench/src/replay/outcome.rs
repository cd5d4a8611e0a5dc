//! What came of a replay.

use std::time::Duration;

use vhost_user_wire::DeviceType;

use super::compare::{Answer, Difference};

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub requests: u64,
    pub equal: u64,
    pub different: u64,
    /// Buffers for what comes from elsewhere.
    pub external: u64,
    /// Not recorded as they were.
    pub left_out: u64,
    pub elapsed: Duration,
    pub notes: Vec<String>,
    pub first: Option<First>,
    /// Why nothing behind some request was compared.
    pub ended_early: Option<String>,
}

impl Outcome {
    pub fn is_equal(&self) -> bool {
        self.different == 0 && self.ended_early.is_none()
    }
}

/// The first difference, with what a reader needs.
#[derive(Debug)]
pub struct First {
    pub number: u64,
    pub queue: u8,
    pub what: String,
    pub device_type: Option<DeviceType>,
    pub difference: Difference,
    pub expected: Answer,
    pub found: Option<Answer>,
    /// What the recording has, where two backends are compared.
    pub recorded: Option<Answer>,
    /// The requests before it, the last at the end.
    pub before: Vec<String>,
    /// The last lines that the backend printed.
    pub output: Vec<String>,
}
