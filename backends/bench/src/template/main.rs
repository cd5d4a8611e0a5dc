//! {{name}}: a virtio device of type {{type}}, as a vhost-user backend.

mod device;

use std::process::ExitCode;

use anyhow::Context;
use backends::log;
use backends::prelude::*;
use clap::Parser;

#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,
    #[command(flatten)]
    device: device::Options,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log::init();
    cli::exit("{{name}}", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let device = device::Device::open(&cli.device)?;
    Ok(cli.socket.open()?.serve_device(device, shutdown)?)
}
