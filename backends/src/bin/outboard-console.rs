//! `outboard-console`: a terminal, file or socket as a vhost-user console device.

use std::process::ExitCode;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli::{self, SocketArgs};
use backends::console::Console;
use backends::console::terminal::{Target, Terminal};
use backends::log;
use backends::shutdown::Shutdown;
use clap::Parser;

/// Give a virtual machine a console (Linux: console=hvc0) over vhost-user.
///
/// With --socket it serves one frontend after another until SIGTERM, SIGINT, SIGHUP, or Ctrl-A x on a terminal (Ctrl-A h helps). Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-console", version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// Where it goes: stdio, pty, file=PATH (output only) or unix=PATH (one client at a time)
    #[arg(long, value_name = "TARGET", default_value = "stdio")]
    terminal: Target,
}

const CAPABILITIES: Capabilities = Capabilities {
    device: "console",
    features: &[],
};

fn main() -> ExitCode {
    let cli: Cli = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-console", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let meeting = cli.socket.open()?;
    let terminal = Terminal::open(&cli.terminal, shutdown.handle())?;
    Ok(meeting.serve_device(Console::new(terminal), shutdown)?)
}
