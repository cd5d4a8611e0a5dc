//! Instructions of the paths that every exit and every request take, beside those of
//! `baseline.txt`. They are the same however busy the machine is.
//!
//! `valgrind --tool=callgrind` counts: this program runs itself under it, a path at a time. A
//! fifth more than the baseline is a failure; a fifth less asks for another baseline.

mod block;
mod dispatch;
mod page_walk;
mod ring;
mod transport;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

/// What a path is called, and what makes it ready: a closure that takes it once.
type Path = (&'static str, fn() -> Box<dyn FnMut()>);

const PATHS: [Path; 6] = [
    ("exit-dispatch", dispatch::prepare),
    ("transport-write", transport::prepare),
    ("block-request-parse", block::prepare),
    ("ring-split", ring::prepare_split),
    ("ring-packed", ring::prepare_packed),
    ("page-walk", page_walk::prepare),
];

const BASELINE: &str = include_str!("baseline.txt");
const BASELINE_FILE: &str = "tests/benches/instructions/baseline.txt";
/// In percent of the baseline.
const TOLERANCE: u64 = 20;
/// So often a path is taken, after as many times that do not count.
const ROUNDS: u64 = 1000;

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let path = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let result = match path {
        Some(path) => take(&path),
        None => compare(),
    };
    if let Err(error) = result {
        eprintln!("instructions: {error:#}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// In the process that is measured.
fn take(name: &str) -> Result<()> {
    let path = PATHS.iter().find(|(known, _)| *known == name);
    let (_, prepare) = path.with_context(|| format!("there is no path {name}"))?;
    let mut once = prepare();
    for _ in 0..ROUNDS {
        once();
    }
    counted(&mut once);
    Ok(())
}

/// Callgrind counts what this does, by its name.
#[inline(never)]
fn counted(once: &mut dyn FnMut()) {
    for _ in 0..ROUNDS {
        black_box(&mut *once)();
    }
}

fn compare() -> Result<()> {
    let mut worse = Vec::new();
    for (name, _) in PATHS {
        let (found, expected) = (count(name)?, baseline(name)?);
        println!("{name}: {found} instructions (baseline: {expected})");
        if found * 100 > expected * (100 + TOLERANCE) {
            worse.push(name);
        } else if found * 100 < expected * (100 - TOLERANCE) {
            println!("{name}: it has become cheaper: write {found} into {BASELINE_FILE}");
        }
    }
    ensure!(
        worse.is_empty(),
        "more than {TOLERANCE} % above the baseline: {}; if that is wanted, write the new counts \
         into {BASELINE_FILE}",
        worse.join(", ")
    );
    Ok(())
}

fn baseline(name: &str) -> Result<u64> {
    let lines = BASELINE.lines().filter_map(|line| line.split_once(' '));
    let mut counts = lines.filter(|(known, _)| *known == name);
    let (_, count) = counts
        .next()
        .with_context(|| format!("{BASELINE_FILE} has no line for {name}"))?;
    Ok(count.trim().parse()?)
}

/// Instructions of one path, on average.
fn count(name: &str) -> Result<u64> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*::counted*"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(std::env::current_exe()?)
        .arg(name)
        .output()
        .context("valgrind cannot be run; Debian's package valgrind has it")?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let written = std::fs::read_to_string(&file)?;
    let totals = written
        .lines()
        .find_map(|line| line.strip_prefix("totals: "));
    let total: u64 = totals
        .context("callgrind wrote no totals")?
        .trim()
        .parse()?;
    ensure!(
        total > ROUNDS,
        "callgrind has not found what it is to count"
    );
    Ok(total / ROUNDS)
}
