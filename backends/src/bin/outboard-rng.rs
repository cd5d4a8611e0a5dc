//! `outboard-rng`: random bytes of the host as a vhost-user entropy device.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use backends::cli::{self, SocketArgs};
use backends::log;
use backends::rng::Rng;
use backends::shutdown::Shutdown;
use clap::Parser;

/// Give a virtual machine random bytes over vhost-user.
///
/// With --socket it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-rng", version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// Where the bytes come from. At the end of a regular file the guest waits
    #[arg(long, value_name = "FILE", default_value = "/dev/urandom")]
    source: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init();
    cli::exit("outboard-rng", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let rng = Rng::open(&cli.source)?;
    Ok(cli.socket.open()?.serve_device(rng, shutdown)?)
}
