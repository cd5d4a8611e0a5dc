//! Runs checks against backends and frontends, and writes the tables of docs/conformance.md.

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use workbench::backend::FrontendSource;
use workbench::check::{Check, Finding, Level, Outcome, Runner, all};
use workbench::check_frontend::{self, FrontendRunner};
use workbench::device::DeviceType;
use workbench::report::Pattern;
use workbench::target::Target;

/// Checks backends or frontends, and writes what was found as Markdown to standard output.
#[derive(Debug, Parser)]
struct Options {
    /// Run only checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// They are frontends
    #[arg(long)]
    frontends: bool,

    /// NAME|VERSION|TYPE|COMMAND, as often as there are programs
    #[arg(required = true)]
    programs: Vec<String>,
}

/// A program with what became of each check.
struct Program {
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
    let check: &Judge = if options.frontends {
        &check_frontend
    } else {
        &|text| check_backend(&checks, text)
    };
    let mut programs = Vec::new();
    for some in options.programs.chunks(AT_ONCE) {
        programs.extend(check_all(check, some));
    }
    let text = if options.frontends {
        let failures = failures("## Failures of frontends", &programs, Evidence::None);
        [table("frontend", &programs), failures].join("\n")
    } else {
        let failures = failures("## Failures", &programs, Evidence::LastMessages);
        let differences = differences(&checks, &programs);
        [table("backend", &programs), failures, differences].join("\n")
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Finds out what becomes of each check of a program.
type Judge<'a> = dyn Fn(&str) -> anyhow::Result<Program> + Sync + 'a;

/// Programs that are checked side by side: most of the time goes into waiting.
const AT_ONCE: usize = 4;

/// Checks some programs; says of which that was impossible.
fn check_all(check: &Judge, texts: &[String]) -> Vec<Program> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = texts
            .iter()
            .map(|text| (text, scope.spawn(|| check(text))))
            .collect();
        let mut programs = Vec::new();
        for (text, thread) in threads {
            match thread.join() {
                Ok(Ok(program)) => programs.push(program),
                Ok(Err(error)) => eprintln!("conformance: {text}: {error:#}"),
                Err(_) => eprintln!("conformance: {text}: a check panicked"),
            }
        }
        programs
    })
}

fn check_backend(checks: &[&'static Check], text: &str) -> anyhow::Result<Program> {
    let (name, version, device_type, command) = parse(text)?;
    let target = Target::command(command).map_err(anyhow::Error::msg)?;
    let runner = Runner::new(target, device_type, SEED).context("it cannot be checked")?;
    Ok(Program {
        name,
        version,
        device_type,
        findings: checks.iter().map(|check| runner.run(check)).collect(),
    })
}

fn check_frontend(text: &str) -> anyhow::Result<Program> {
    let (name, version, device_type, command) = parse(text)?;
    let source = FrontendSource::command(command).map_err(anyhow::Error::msg)?;
    let runner = FrontendRunner::new(source, device_type).context("it cannot be checked")?;
    Ok(Program {
        name,
        version,
        device_type,
        findings: check_frontend::all()
            .map(|check| runner.run(check))
            .collect(),
    })
}

/// Name, version, type and command.
fn parse(text: &str) -> anyhow::Result<(String, String, DeviceType, &str)> {
    let parts: Vec<_> = text.splitn(4, '|').collect();
    let [name, version, device_type, command] = parts[..] else {
        anyhow::bail!("a program is NAME|VERSION|TYPE|COMMAND");
    };
    eprintln!("conformance: checking {name} ({device_type})");
    let device_type = device_type.parse().map_err(anyhow::Error::msg)?;
    Ok((name.to_owned(), version.to_owned(), device_type, command))
}

fn failed(finding: &Finding) -> bool {
    matches!(finding.outcome, Outcome::Fail(_))
}

/// A check that is not for another type, and was skipped.
fn is_skipped(finding: &Finding, device_type: DeviceType) -> bool {
    let known = all().find(|check| check.name == finding.check.name);
    let concerns = known.is_none_or(|check| check.concerns(device_type));
    matches!(finding.outcome, Outcome::Skip(_)) && concerns
}

impl Program {
    fn count(&self, is_counted: impl Fn(&Finding) -> bool) -> usize {
        self.findings.iter().filter(|one| is_counted(one)).count()
    }
}

fn table(kind: &str, programs: &[Program]) -> String {
    let mut text = format!(
        "| {kind} | version | type | passed | failed MUST | failed SHOULD | skipped | not tried |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for backend in programs {
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

/// What is shown of the messages of a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Evidence {
    /// What was found says it all: a check that looks at a whole run does not end where the fault
    /// is.
    None,
    LastMessages,
}

fn failures(heading: &str, programs: &[Program], evidence: Evidence) -> String {
    let mut text = format!("{heading}\n");
    for backend in programs.iter().filter(|one| one.count(failed) > 0) {
        text += &format!("\n### {} {}\n\n", backend.name, backend.version);
        for finding in &backend.findings {
            text += &failure(finding, evidence).unwrap_or_default();
        }
    }
    text
}

/// Messages that are shown of a failure: the last ones.
const MESSAGES: usize = 6;
/// Characters that are shown of a line.
const WIDTH: usize = 160;

fn failure(finding: &Finding, evidence: Evidence) -> Option<String> {
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
    if check.level == Level::Should || evidence == Evidence::None {
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
fn differences(checks: &[&Check], programs: &[Program]) -> String {
    let mut text = "## Differences between backends of one type\n\n\
        | check | type | passed by | failed by |\n|---|---|---|---|\n"
        .to_owned();
    for (n, check) in checks.iter().enumerate() {
        let mut types: Vec<_> = programs.iter().map(|one| one.device_type).collect();
        types.sort_unstable();
        types.dedup();
        for device_type in types {
            let names = |wanted| -> Vec<String> {
                let of_type = programs.iter().filter(|one| one.device_type == device_type);
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
