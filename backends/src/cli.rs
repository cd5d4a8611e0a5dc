//! What the command lines of all backends share: socket options, logging, exit status.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use tracing_subscriber::EnvFilter;

/// Exit status after a host-side failure. (Bad usage is 2, from clap; the end on request is 0.)
pub const HOST_FAILURE: u8 = 1;

/// Where the frontend is met.
#[derive(Debug, Clone, Args)]
pub struct SocketArgs {
    /// Unix socket to listen on; a stale one is replaced, a live one is not
    #[arg(long, value_name = "PATH", alias = "socket-path")]
    pub socket: PathBuf,
}

/// Sends log lines to stderr: warnings and notes by default, more or less by `RUST_LOG`.
pub fn init_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .init();
}

/// Turns a program's result into its exit status; an error is printed once, with its causes.
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error:#}");
            ExitCode::from(HOST_FAILURE)
        }
    }
}
