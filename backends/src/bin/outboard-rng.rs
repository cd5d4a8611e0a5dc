//! `outboard-rng`: random bytes of the host as a vhost-user entropy device.

use std::process::ExitCode;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli;
use backends::log;
use backends::rng::Rng;
use backends::rng::args::RngArgs;
use backends::sandbox::Program;
use backends::shutdown::Shutdown;

const CAPABILITIES: Capabilities = Capabilities {
    device: "rng",
    features: &[],
};

const SANDBOX: Program = Program {
    name: "outboard-rng",
    device: &[],
};

fn main() -> ExitCode {
    let cli: RngArgs = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-rng", run(&cli))
}

fn run(cli: &RngArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let rng = Rng::open(&cli.source, cli.limit())?;
    let meeting = cli.socket.open()?;
    cli.sandbox.raise(SANDBOX, meeting.files())?;
    Ok(meeting.serve_device(rng, shutdown)?)
}
