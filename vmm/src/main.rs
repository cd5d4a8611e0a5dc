//! Parses the command line, runs, and prints the error chain.

use std::io::{self, IsTerminal, Write};
use std::panic;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use vmm::api;
use vmm::boot;
use vmm::cli::{Cli, Command, ExplainArgs, RunArgs};
use vmm::config::{self, Config};
use vmm::event_loop::Ended;
use vmm::signals::Signals;
use vmm::up::cli::UpArgs;
use vmm::up::{self, Up};
use vmm::{hints, host, log, machine, run, say};
use workbench::new_backend::{self, NewBackendArgs};
use workbench::record::Tell;
use workbench::record::cli::{self as record, RecordArgs};
use workbench::replay::cli as replay;
use workbench::trace::cli as trace;

const HOST_FAILURE: u8 = 1;
const BAD_USAGE: u8 = 2;
/// Of a replay whose answers are not those of the recording.
const DIFFERENT: u8 = 1;

fn main() -> ExitCode {
    let started = Instant::now();
    // The panic of another thread ends the machine in order. The same hook reports this
    // thread's own panic, and unwinding puts its setup back on the way here.
    let status = panic::catch_unwind(|| carry_out(started)).unwrap_or(HOST_FAILURE.into());
    log::flush();
    status
}

fn carry_out(started: Instant) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    match cli.command {
        Command::Run(args) if args.print_config => {
            log_by_default();
            match config::print(*args) {
                Ok(toml) => print(toml.as_bytes()),
                Err(error) => fail(&error.into(), BAD_USAGE),
            }
        }
        Command::Run(args) => match run_guest(*args, started) {
            Ok(ended) => ended.status().into(),
            Err(status) => status,
        },
        Command::Up(args) => bring_up(*args, started),
        Command::Gdb(args) => {
            log_by_default();
            fail(&up::attach(&args).into(), HOST_FAILURE)
        }
        Command::Shell(args) => {
            log_by_default();
            match up::shell(&args) {
                Ok(status) => status.into(),
                Err(error) => fail(&error.into(), HOST_FAILURE),
            }
        }
        Command::Doctor => {
            log_by_default();
            let mut report = Vec::new();
            match host::print(&mut report) {
                Ok(()) => print(&report),
                Err(error) => fail(&error.into(), HOST_FAILURE),
            }
        }
        Command::Ctl(args) => {
            log_by_default();
            match api::client::run(&args, &mut io::stdout().lock()) {
                Ok(()) => ExitCode::SUCCESS,
                // A reader that closes standard output early has read enough.
                Err(api::client::Error::Output(error)) if is_broken_pipe(&error) => {
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error.into(), HOST_FAILURE),
            }
        }
        Command::Explain(args) => {
            log_by_default();
            match explain(&args) {
                Ok(text) => print(format!("{text}\n").as_bytes()),
                Err(error) => fail(&error, HOST_FAILURE),
            }
        }
        Command::Trace(args) => {
            log_by_default();
            match trace_connections(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(&error, HOST_FAILURE),
            }
        }
        Command::Record(args) => {
            log_by_default();
            match record_connections(&args) {
                Ok(requests) => {
                    say!("outboard: {requests} requests were recorded");
                    ExitCode::SUCCESS
                }
                Err(error) => fail(&error, HOST_FAILURE),
            }
        }
        Command::Replay(args) => {
            log_by_default();
            match replay::run(&args) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => DIFFERENT.into(),
                Err(error) => fail(&error.into(), BAD_USAGE),
            }
        }
        Command::NewBackend(args) => write_backend(&args),
    }
}

fn write_backend(args: &NewBackendArgs) -> ExitCode {
    log_by_default();
    match new_backend::run(args) {
        Ok(path) => print(format!("{}: see README.md there\n", path.display()).as_bytes()),
        Err(error) if error.is_bad_usage() => fail(&error.into(), BAD_USAGE),
        Err(error) => fail(&error.into(), HOST_FAILURE),
    }
}

fn explain(args: &ExplainArgs) -> anyhow::Result<String> {
    let what = args.what.as_deref();
    let Some(api) = &args.api else {
        // The command line has one of both.
        return Ok(trace::explain(what.unwrap_or(Path::new("")))?);
    };
    let device = what.map(Path::to_string_lossy);
    Ok(api::client::explain(api, device.as_deref())?)
}

fn trace_connections(args: &trace::TraceArgs) -> anyhow::Result<()> {
    let signals = Signals::catch().context("cannot catch signals")?;
    trace::run(args, signals.quit(), |text| say!("outboard: {text}"))?;
    Ok(())
}

fn record_connections(args: &RecordArgs) -> anyhow::Result<u64> {
    let signals = Signals::catch().context("cannot catch signals")?;
    let tell: Tell = Arc::new(|text| say!("outboard: {text}"));
    Ok(record::run(args, signals.quit(), &tell)?)
}

/// A machine's configuration says how it logs; for other commands the environment does.
fn log_by_default() {
    // The defaults cannot be refused.
    let _ = log::init(&log::Options::default());
}

/// Shows help, or the error in the command line with hints.
fn refuse(error: &clap::Error) -> ExitCode {
    // A reader that has gone knows enough.
    let _ = error.print();
    if error.use_stderr() {
        let words = std::env::args_os().skip(1);
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into()).collect();
        for hint in hints::hints(&words) {
            say!("hint: {hint}");
        }
    }
    u8::try_from(error.exit_code()).unwrap_or(BAD_USAGE).into()
}

/// A reader that closes standard output early has read enough.
fn print(answer: &[u8]) -> ExitCode {
    let mut stdout = io::stdout();
    match stdout.write_all(answer).and_then(|()| stdout.flush()) {
        Err(error) if !is_broken_pipe(&error) => {
            let error = anyhow::Error::new(error).context("cannot write to standard output");
            fail(&error, HOST_FAILURE)
        }
        _ => ExitCode::SUCCESS,
    }
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

/// Runs a machine to its end; if it cannot, says why, and gives this program's status.
fn run_guest(args: RunArgs, started: Instant) -> Result<Ended, ExitCode> {
    let config = Config::try_from(args).map_err(|error| fail(&error.into(), BAD_USAGE))?;
    log::init(&config.log).map_err(|error| fail(&error.into(), BAD_USAGE))?;
    run::run(&config, started).map_err(|error| {
        let status = if is_bad_usage(&error) {
            BAD_USAGE
        } else {
            HOST_FAILURE
        };
        fail(&error.into(), status)
    })
}

fn bring_up(args: UpArgs, started: Instant) -> ExitCode {
    let mut up = match Up::prepare(args) {
        Ok(up) => up,
        Err(error) => {
            log_by_default();
            return fail(&error.into(), HOST_FAILURE);
        }
    };
    if io::stdin().is_terminal() {
        say!(
            "outboard: this machine is called {0}: `outboard gdb {0}` attaches gdb",
            up.name()
        );
    }
    let args = up.take_args();
    match run_guest(args, started) {
        Ok(Ended::Crashed) => Ended::Crashed.status().into(),
        Ok(_) => match up.status() {
            Ok(status) => status.into(),
            Err(error) => fail(&error.into(), HOST_FAILURE),
        },
        Err(status) => status,
    }
}

/// Whether the user asked for something impossible, rather than the host
/// failing at something possible.
fn is_bad_usage(error: &run::Error) -> bool {
    let error = match error {
        run::Error::Symbols(_)
        | run::Error::Machine(
            machine::Error::TooManyCpus { .. } | machine::Error::TooMuchMemory { .. },
        ) => return true,
        run::Error::Boot(error) | run::Error::Machine(machine::Error::Boot(error)) => error,
        _ => return false,
    };
    !matches!(
        error,
        boot::Error::Kernel(boot::KernelError::Read { .. })
            | boot::Error::Memory(_)
            | boot::Error::Registers(_)
    )
}

/// Prints the chain of causes on one line.
fn fail(error: &anyhow::Error, status: u8) -> ExitCode {
    say!("outboard: {error:#}");
    status.into()
}
