//! `outboard-check`: the executable specification of vhost-user and virtio.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Parser, ValueEnum};
use workbench::check::{Check, Finding, Runner, all};
use workbench::device::DeviceType;
use workbench::report::{self, Pattern, Summary, Text};
use workbench::target::Target;

/// Checks a vhost-user backend against the vhost-user document and virtio 1.4, without a guest.
///
/// It plays the frontend and the driver. Checks may write to the device, and put back what was
/// there: use a disk that you can lose. The exit status is 0 when all checks that apply passed,
/// 1 when one failed or could not be tried, 2 when nothing could be checked.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    #[command(flatten)]
    place: Place,

    /// Type of the device: blk, net, rng, …, or its number
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "list")]
    device_type: Option<DeviceType>,

    /// Run only checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,

    /// Do not run checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    skip: Vec<String>,

    /// What checks that act at random begin with; a failure shows it
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How the findings are written to standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,

    /// List the checks with their rules, and end
    #[arg(long)]
    list: bool,
}

/// Where the backend is.
#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
struct Place {
    /// Connect to a backend that listens there, and serves one connection after another
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Start a backend for each check; its socket goes where the command has {fd}, {listen-fd} or
    /// {socket}
    #[arg(long, value_name = "COMMAND")]
    exec: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    Junit,
}

const FAILED: u8 = 1;
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(summary) if summary.is_good() => ExitCode::SUCCESS,
        Ok(_) => FAILED.into(),
        Err(error) => {
            eprintln!("outboard-check: {error:#}");
            UNUSABLE.into()
        }
    }
}

fn run(options: &Options) -> anyhow::Result<Summary> {
    let checks = select(options)?;
    if options.list {
        print(&report::list(checks.into_iter()))?;
        return Ok(Summary::default());
    }
    let device_type = options.device_type.context("--type is missing")?;
    let seed = options.seed.unwrap_or_else(seed);
    let runner = Runner::new(target(&options.place)?, device_type, seed)?;
    let findings = match options.format {
        Format::Text => run_for_people(&checks, &runner)?,
        Format::Json | Format::Junit => checks.iter().map(|check| runner.run(check)).collect(),
    };
    match options.format {
        Format::Text => {}
        Format::Json => print(&report::json(&findings, &runner))?,
        Format::Junit => print(&report::junit(&findings, &runner))?,
    }
    Ok(Summary::of(&findings))
}

/// The checks that were asked for. Those of other device types are not, unless by name.
fn select(options: &Options) -> anyhow::Result<Vec<&'static Check>> {
    let patterns = |texts: &[String]| -> Vec<Pattern> {
        texts.iter().map(|text| Pattern::new(text)).collect()
    };
    let (only, skip) = (patterns(&options.only), patterns(&options.skip));
    for pattern in only.iter().chain(&skip) {
        let is_known = all().any(|check| pattern.matches(check.name));
        anyhow::ensure!(
            is_known,
            "no check is called {pattern}; --list shows their names"
        );
    }
    let is_asked = |check: &&Check| {
        let is_one_of = |patterns: &[Pattern]| patterns.iter().any(|p| p.matches(check.name));
        let is_meant = match options.device_type {
            Some(device_type) if only.is_empty() => check.concerns(device_type),
            _ => only.is_empty() || is_one_of(&only),
        };
        is_meant && !is_one_of(&skip)
    };
    Ok(all().filter(is_asked).collect())
}

fn target(place: &Place) -> anyhow::Result<Target> {
    match (&place.socket, &place.exec) {
        (Some(path), _) => Ok(Target::Socket(path.clone())),
        (None, Some(text)) => Target::command(text).map_err(anyhow::Error::msg),
        (None, None) => anyhow::bail!("--socket or --exec says where the backend is"),
    }
}

fn run_for_people(checks: &[&'static Check], runner: &Runner) -> anyhow::Result<Vec<Finding>> {
    let is_terminal = std::io::stdout().is_terminal();
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
    let text = Text { colour };
    let mut findings = Vec::new();
    for (n, check) in checks.iter().enumerate() {
        if is_terminal {
            print(&format!(
                "\r\x1b[K[{}/{}] {}",
                n + 1,
                checks.len(),
                check.name
            ))?;
        }
        let finding = runner.run(check);
        if is_terminal {
            print("\r\x1b[K")?;
        }
        print(&text.finding(&finding, runner))?;
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
