//! Counts.

use std::time::Duration;

use crate::check::{Finding, Level, Outcome};

/// How many checks came to what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub passed: usize,
    pub failed_must: usize,
    pub failed_should: usize,
    pub skipped: usize,
    pub untried: usize,
    pub time: Duration,
}

impl Summary {
    pub fn of(findings: &[Finding]) -> Self {
        let mut summary = Self::default();
        for finding in findings {
            summary.time += finding.time;
            match (&finding.outcome, finding.check.level) {
                (Outcome::Pass, _) => summary.passed += 1,
                (Outcome::Skip(_), _) => summary.skipped += 1,
                (Outcome::Untried(_), _) => summary.untried += 1,
                (Outcome::Fail(_), Level::Must) => summary.failed_must += 1,
                (Outcome::Fail(_), Level::Should) => summary.failed_should += 1,
            }
        }
        summary
    }

    /// Whether all checks that apply passed.
    pub fn is_good(&self) -> bool {
        self.failed_must + self.failed_should + self.untried == 0
    }
}
