//! For programs: JSON.

use serde_json::{Value, json as object};

use super::summary::Summary;
use super::text::repeat;
use crate::check::{Finding, Outcome, Subject};

/// One object with the counts and an array of checks.
pub fn json(findings: &[Finding], subject: &impl Subject) -> String {
    let summary = Summary::of(findings);
    let checks: Vec<Value> = findings
        .iter()
        .map(|finding| check(finding, subject))
        .collect();
    let mut report = object!({
        "target": subject.target(),
        "type": subject.device_type().to_string(),
        "passed": summary.passed,
        "failed_must": summary.failed_must,
        "failed_should": summary.failed_should,
        "skipped": summary.skipped,
        "untried": summary.untried,
        "seconds": summary.time.as_secs_f64(),
        "checks": checks,
    });
    if let Some(seed) = subject.seed() {
        report["seed"] = seed.into();
    }
    format!("{report:#}\n")
}

fn check(finding: &Finding, subject: &impl Subject) -> Value {
    let check = finding.check;
    let mut value = object!({
        "name": check.name,
        "level": check.level.to_string(),
        "source": check.source.to_string(),
        "rule": check.rule,
        "seconds": finding.time.as_secs_f64(),
    });
    let more = match &finding.outcome {
        Outcome::Pass => object!({"outcome": "pass"}),
        Outcome::Skip(reason) => object!({"outcome": "skip", "reason": reason}),
        Outcome::Untried(reason) => object!({"outcome": "error", "reason": reason}),
        Outcome::Fail(failure) => object!({
            "outcome": "fail",
            "found": failure.found,
            "messages": failure.messages.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "output": failure.output,
            "repeat": repeat(check, subject),
        }),
    };
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    value
}
