//! Runs checks against backends, and writes the tables of docs/conformance.md.

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use workbench::check::{Check, Finding, Level, Need, Outcome, Runner, all};
use workbench::device::DeviceType;
use workbench::report::Pattern;
use workbench::target::Target;

/// Checks backends, and writes what was found as Markdown to standard output.
#[derive(Debug, Parser)]
struct Options {
    /// Run only checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// NAME|VERSION|TYPE|COMMAND, as often as there are backends
    #[arg(required = true)]
    backends: Vec<String>,
}

/// A backend with what became of each check.
struct Backend {
    name: String,
    version: String,
    device_type: DeviceType,
    findings: Vec<Finding>,
}

/// What checks that act at random begin with: the same each time, so that runs can be compared.
const SEED: u64 = 1;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let patterns: Vec<_> = options.only.iter().map(|text| Pattern::new(text)).collect();
    let is_asked = |check: &&Check| patterns.iter().any(|one| one.matches(check.name));
    let checks: Vec<_> = all()
        .filter(|check| patterns.is_empty() || is_asked(check))
        .collect();
    let mut backends = Vec::new();
    for some in options.backends.chunks(AT_ONCE) {
        backends.extend(check_all(&checks, some));
    }
    let text = [
        table(&backends),
        failures(&backends),
        differences(&checks, &backends),
    ]
    .join("\n");
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Backends that are checked side by side: most of the time goes into waiting.
const AT_ONCE: usize = 4;

/// Checks some backends; says of which that was impossible.
fn check_all(checks: &[&'static Check], texts: &[String]) -> Vec<Backend> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = texts
            .iter()
            .map(|text| (text, scope.spawn(|| check(checks, text))))
            .collect();
        let mut backends = Vec::new();
        for (text, thread) in threads {
            match thread.join() {
                Ok(Ok(backend)) => backends.push(backend),
                Ok(Err(error)) => eprintln!("conformance: {text}: {error:#}"),
                Err(_) => eprintln!("conformance: {text}: a check panicked"),
            }
        }
        backends
    })
}

fn check(checks: &[&'static Check], text: &str) -> anyhow::Result<Backend> {
    let parts: Vec<_> = text.splitn(4, '|').collect();
    let [name, version, device_type, command] = parts[..] else {
        anyhow::bail!("a backend is NAME|VERSION|TYPE|COMMAND");
    };
    eprintln!("conformance: checking {name} ({device_type})");
    let device_type = device_type.parse().map_err(anyhow::Error::msg)?;
    let target = Target::command(command).map_err(anyhow::Error::msg)?;
    let runner = Runner::new(target, device_type, SEED).context("it cannot be checked")?;
    Ok(Backend {
        name: name.to_owned(),
        version: version.to_owned(),
        device_type,
        findings: checks.iter().map(|check| runner.run(check)).collect(),
    })
}

fn failed(finding: &Finding) -> bool {
    matches!(finding.outcome, Outcome::Fail(_))
}

/// A check that is not for another type, and was skipped.
fn is_skipped(finding: &Finding, device_type: DeviceType) -> bool {
    let is_other = |need: &Need| matches!(need, Need::Type(wanted) if *wanted != device_type);
    let is_for_another = finding.check.needs.iter().any(is_other);
    matches!(finding.outcome, Outcome::Skip(_)) && !is_for_another
}

impl Backend {
    fn count(&self, is_counted: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|one| is_counted(one)).count()
    }
}

fn table(backends: &[Backend]) -> String {
    let mut text = "\
| backend | version | type | passed | failed MUST | failed SHOULD | skipped | not tried |
|---|---|---|---|---|---|---|---|
"
    .to_owned();
    for backend in backends {
        let failures = |level| backend.count(|one| failed(one) && one.check.level == level);
        text += &format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |\n",
            backend.name,
            backend.version,
            backend.device_type,
            backend.count(|one| matches!(one.outcome, Outcome::Pass)),
            failures(Level::Must),
            failures(Level::Should),
            backend.count(|one| is_skipped(one, backend.device_type)),
            backend.count(|one| matches!(one.outcome, Outcome::Untried(_))),
        );
    }
    text
}

fn failures(backends: &[Backend]) -> String {
    let mut text = "## Failures\n".to_owned();
    for backend in backends.iter().filter(|one| one.count(failed) > 0) {
        text += &format!("\n### {} {}\n\n", backend.name, backend.version);
        for finding in &backend.findings {
            text += &failure(finding).unwrap_or_default();
        }
    }
    text
}

/// Messages that are shown of a failure: the last ones.
const MESSAGES: usize = 6;
/// Characters that are shown of a line.
const WIDTH: usize = 160;

fn failure(finding: &Finding) -> Option<String> {
    let Outcome::Fail(failure) = &finding.outcome else {
        return None;
    };
    let check = finding.check;
    let found = failure.found.replace('\n', " ");
    let found: String = found.chars().take(WIDTH).collect();
    let mut text = format!(
        "* **{}** ({}; {}). Demanded: {}. Found: {}.\n",
        check.name, check.level, check.source, check.rule, found
    );
    if check.level == Level::Should {
        return Some(text);
    }
    text += "\n  ```text\n";
    let skipped = failure.messages.len().saturating_sub(MESSAGES);
    let messages = failure
        .messages
        .iter()
        .skip(skipped)
        .map(ToString::to_string);
    let output = failure.output.iter().rev().take(3).rev();
    let lines = messages.chain(output.map(|line| format!("| {line}")));
    for line in lines {
        let line: String = line.chars().take(WIDTH).collect();
        text += &format!("  {line}\n");
    }
    text += "  ```\n";
    Some(text)
}

/// What became of a check, in a word.
fn verdict(finding: &Finding) -> &'static str {
    match finding.outcome {
        Outcome::Pass => "passed",
        Outcome::Fail(_) => "failed",
        Outcome::Skip(_) => "skipped",
        Outcome::Untried(_) => "not tried",
    }
}

/// Checks that one backend passes and another of its type fails.
fn differences(checks: &[&Check], backends: &[Backend]) -> String {
    let mut text = "## Differences between backends of one type\n\n\
        | check | type | passed by | failed by |\n|---|---|---|---|\n"
        .to_owned();
    for (n, check) in checks.iter().enumerate() {
        let mut types: Vec<_> = backends.iter().map(|one| one.device_type).collect();
        types.sort_unstable();
        types.dedup();
        for device_type in types {
            let names = |wanted| -> Vec<String> {
                let of_type = backends.iter().filter(|one| one.device_type == device_type);
                let alike = of_type.filter(|one| verdict(&one.findings[n]) == wanted);
                alike
                    .map(|one| format!("{} {}", one.name, one.version))
                    .collect()
            };
            let (passed, failed) = (names("passed"), names("failed"));
            if !passed.is_empty() && !failed.is_empty() {
                let (passed, failed) = (passed.join(", "), failed.join(", "));
                text += &format!("| {} | {device_type} | {passed} | {failed} |\n", check.name);
            }
        }
    }
    text
}
