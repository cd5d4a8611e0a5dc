//! `outboard-console`: a terminal, file or socket as a vhost-user console device.

use std::process::ExitCode;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli;
use backends::console::Console;
use backends::console::args::ConsoleArgs;
use backends::console::terminal::{Opened, Target, Terminal};
use backends::log;
use backends::sandbox::Program;
use backends::shutdown::Shutdown;

const CAPABILITIES: Capabilities = Capabilities {
    device: "console",
    features: &[],
};

const SANDBOX: Program = Program {
    name: "outboard-console",
    device: &[],
};

fn main() -> ExitCode {
    let cli: ConsoleArgs = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-console", run(&cli))
}

fn run(cli: &ConsoleArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let meeting = cli.socket.open()?;
    let opened = Opened::open(&cli.terminal, shutdown.handle())?;
    let files = match &cli.terminal {
        Target::Unix(path) => meeting.files().removable(path),
        _ => meeting.files(),
    };
    cli.sandbox.raise(SANDBOX, files)?;
    let terminal = Terminal::start(opened)?;
    Ok(meeting.serve_device(Console::new(terminal), shutdown)?)
}
