//! For people: a line for each check, what they need to know of a failure, and a summary.

use std::fmt::Write;

use super::summary::Summary;
use crate::check::{Failure, Finding, Heading, Outcome, Subject};

/// Messages of a failure that are shown; the ones before are counted.
const MESSAGES: usize = 40;

/// How findings are written.
#[derive(Clone, Copy, Debug)]
pub struct Text {
    /// For a terminal.
    pub colour: bool,
}

const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const DIM: &str = "2";
const BOLD: &str = "1";

impl Text {
    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour {
            format!("\x1b[{style}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// One line, and more for a failure.
    pub fn finding(&self, finding: &Finding, subject: &impl Subject) -> String {
        let check = finding.check;
        match &finding.outcome {
            Outcome::Pass => format!("{} {}\n", self.paint(GREEN, "pass"), check.name),
            Outcome::Skip(reason) => {
                let reason = self.paint(DIM, &format!("({reason})"));
                format!("{} {} {reason}\n", self.paint(YELLOW, "skip"), check.name)
            }
            Outcome::Untried(reason) => {
                let name = self.paint(BOLD, check.name);
                format!(
                    "{} {name} (could not be tried: {reason})\n",
                    self.paint(RED, "ERROR")
                )
            }
            Outcome::Fail(failure) => self.failure(check, failure, subject),
        }
    }

    fn failure(&self, check: Heading, failure: &Failure, subject: &impl Subject) -> String {
        let mut text = String::new();
        let mut line = |label: &str, content: &str| {
            _ = writeln!(text, "     {:<9} {content}", format!("{label}:"));
        };
        line("section", &format!("{} ({})", check.source, check.level));
        line("demanded", check.rule);
        line("found", &failure.found);
        line("repeat", &repeat(check, subject));
        let hidden = failure.messages.len().saturating_sub(MESSAGES);
        if hidden > 0 {
            line("messages", &format!("({hidden} before)"));
        } else {
            line("messages", "");
        }
        for entry in &failure.messages[hidden..] {
            _ = writeln!(text, "       {entry}");
        }
        if !failure.output.is_empty() {
            _ = writeln!(text, "     output:   (its last lines)");
        }
        for output in &failure.output {
            _ = writeln!(text, "       | {output}");
        }
        format!(
            "{} {}\n{text}",
            self.paint(RED, "FAIL"),
            self.paint(BOLD, check.name)
        )
    }

    pub fn summary(&self, findings: &[Finding]) -> String {
        let summary = Summary::of(findings);
        let mut text = String::new();
        if !summary.is_good() {
            _ = writeln!(text);
        }
        for finding in findings {
            if matches!(finding.outcome, Outcome::Fail(_)) {
                let check = finding.check;
                let level = check.level.to_string();
                let name = self.paint(BOLD, &format!("{:<42}", check.name));
                _ = writeln!(text, "{level:<6} {name} {}", check.source);
            }
        }
        let failed = summary.failed_must + summary.failed_should;
        let style = if summary.is_good() { GREEN } else { RED };
        let mut counts = format!(
            "{} passed, {failed} failed ({} MUST, {} SHOULD), {} skipped",
            summary.passed, summary.failed_must, summary.failed_should, summary.skipped
        );
        if summary.untried > 0 {
            counts += &format!(", {} could not be tried", summary.untried);
        }
        let seconds = summary.time.as_secs_f64();
        _ = writeln!(text, "\n{} in {seconds:.1} s", self.paint(style, &counts));
        text
    }
}

/// The command that runs just this check.
pub(super) fn repeat(check: Heading, subject: &impl Subject) -> String {
    let (target, kind) = (subject.target(), subject.device_type());
    let seed = subject.seed().map(|seed| format!(" --seed {seed}"));
    format!(
        "outboard-check {target} --type {kind} --only {}{}",
        check.name,
        seed.unwrap_or_default()
    )
}

/// A table of checks.
pub fn list(checks: impl Iterator<Item = Heading>) -> String {
    let mut text = String::new();
    for check in checks {
        let level = check.level.to_string();
        _ = writeln!(text, "{:<44} {level:<6} {}", check.name, check.source);
        _ = writeln!(text, "    {}", check.rule);
    }
    text
}
