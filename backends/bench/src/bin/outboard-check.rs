//! `outboard-check`: the executable specification of vhost-user and virtio.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_shutdown};
use workbench::backend::{FrontendSource, Listen};
use workbench::check::{self, Finding, Heading, Runner, Subject};
use workbench::check_args::{CheckArgs, Format, Place};
use workbench::check_frontend::{self, FrontendRunner};
use workbench::device::DeviceType;
use workbench::report::{self, Pattern, Summary, Text};
use workbench::target::Target;

const FAILED: u8 = 1;
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let options = CheckArgs::parse();
    match run(&options) {
        Ok(summary) if summary.is_good() => ExitCode::SUCCESS,
        Ok(_) => FAILED.into(),
        Err(error) => {
            eprintln!("outboard-check: {error:#}");
            UNUSABLE.into()
        }
    }
}

fn run(options: &CheckArgs) -> anyhow::Result<Summary> {
    if options.frontend {
        run_frontend(options)
    } else {
        run_backend(options)
    }
}

fn run_backend(options: &CheckArgs) -> anyhow::Result<Summary> {
    let all: Vec<_> = check::all().collect();
    let known = all.iter().map(|check| {
        let concerns = options.device_type.is_none_or(|it| check.concerns(it));
        (check.heading(), concerns)
    });
    let asked = select(options, &known.collect::<Vec<_>>())?;
    if options.list {
        return list(asked.iter().map(|n| all[*n].heading()));
    }
    let seed = options.seed.unwrap_or_else(seed);
    let runner = Runner::new(target(&options.place)?, device_type(options)?, seed)?;
    let checks = asked.into_iter().map(|n| all[n]);
    let run = checks.map(|check| (check.heading(), move |runner: &Runner| runner.run(check)));
    report(options, &runner, run.collect())
}

fn run_frontend(options: &CheckArgs) -> anyhow::Result<Summary> {
    let all: Vec<_> = check_frontend::all().collect();
    let known: Vec<_> = all.iter().map(|check| (check.heading(), true)).collect();
    let asked = select(options, &known)?;
    if options.list {
        return list(asked.iter().map(|n| all[*n].heading()));
    }
    let runner = FrontendRunner::new(source(&options.place)?, device_type(options)?)?;
    let checks = asked.into_iter().map(|n| all[n]);
    let run = checks.map(|check| {
        let run = move |runner: &FrontendRunner| runner.run(check);
        (check.heading(), run)
    });
    report(options, &runner, run.collect())
}

fn device_type(options: &CheckArgs) -> anyhow::Result<DeviceType> {
    options.device_type.context("--type is missing")
}

fn list(checks: impl Iterator<Item = Heading>) -> anyhow::Result<Summary> {
    print(&report::list(checks))?;
    Ok(Summary::default())
}

/// The checks that were asked for, by their number. Those that do not concern the type of the
/// device are not, unless by name.
fn select(options: &CheckArgs, known: &[(Heading, bool)]) -> anyhow::Result<Vec<usize>> {
    let patterns = |texts: &[String]| -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text)).collect()
    };
    let (only, skip) = (patterns(&options.only), patterns(&options.skip));
    for pattern in only.iter().chain(&skip) {
        let is_known = known.iter().any(|(check, _)| pattern.matches(check.name));
        anyhow::ensure!(
            is_known,
            "no check is called {pattern}; --list shows their names"
        );
    }
    let is_asked = |(check, concerns): &(Heading, bool)| {
        let is_one_of = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(check.name));
        let is_meant = if only.is_empty() {
            *concerns
        } else {
            is_one_of(&only)
        };
        is_meant && !is_one_of(&skip)
    };
    let asked = known.iter().enumerate().filter(|(_, one)| is_asked(one));
    Ok(asked.map(|(n, _)| n).collect())
}

fn target(place: &Place) -> anyhow::Result<Target> {
    match (&place.socket, &place.exec) {
        (Some(path), _) => Ok(Target::Socket(path.clone())),
        (None, Some(text)) => Target::command(text).map_err(anyhow::Error::msg),
        (None, None) => anyhow::bail!("--socket or --exec says where the backend is"),
    }
}

fn source(place: &Place) -> anyhow::Result<FrontendSource> {
    match (&place.listen, &place.exec) {
        (Some(path), _) => {
            let listen = Listen::new(path.clone(), stop_on_signals()?, |text| {
                eprintln!("outboard-check: {text}");
            });
            Ok(FrontendSource::Listen(listen))
        }
        (None, Some(text)) => FrontendSource::command(text).map_err(anyhow::Error::msg),
        (None, None) => anyhow::bail!("--listen or --exec says where the frontend comes from"),
    }
}

/// Is set by Ctrl-C or SIGTERM. The second one ends the process, should it take too long.
fn stop_on_signals() -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        register_conditional_shutdown(signal, UNUSABLE.into(), Arc::clone(&stop))?;
        register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Runs checks, each with its heading, and says what they found.
fn report<S: Subject>(
    options: &CheckArgs,
    subject: &S,
    checks: Vec<(Heading, impl Fn(&S) -> Finding)>,
) -> anyhow::Result<Summary> {
    let findings = match options.format {
        Format::Text => run_for_people(subject, checks)?,
        Format::Json | Format::Junit => checks.iter().map(|(_, run)| run(subject)).collect(),
    };
    match options.format {
        Format::Text => {}
        Format::Json => print(&report::json(&findings, subject))?,
        Format::Junit => print(&report::junit(&findings, subject))?,
    }
    Ok(Summary::of(&findings))
}

fn run_for_people<S: Subject>(
    subject: &S,
    checks: Vec<(Heading, impl Fn(&S) -> Finding)>,
) -> anyhow::Result<Vec<Finding>> {
    let is_terminal = std::io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
    let text = Text { colour };
    let mut findings = Vec::new();
    for (n, (check, run)) in checks.iter().enumerate() {
        if is_terminal {
            let (n, count) = (n + 1, checks.len());
            print(&format!("\r\x1b[K[{n}/{count}] {}", check.name))?;
        }
        let finding = run(subject);
        if is_terminal {
            print("\r\x1b[K")?;
        }
        print(&text.finding(&finding, subject))?;
        findings.push(finding);
    }
    print(&text.summary(&findings))?;
    Ok(findings)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush().context("standard output")
}

/// Another one each time.
fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(1, |now| u64::from(now.subsec_nanos()))
}
