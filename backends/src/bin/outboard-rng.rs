//! `outboard-rng`: random bytes of the host as a vhost-user entropy device.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli::{self, SocketArgs};
use backends::log;
use backends::rng::Rng;
use backends::rng::limit::Limit;
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

    /// Give the guest at most so many bytes in each period
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes: Option<u64>,

    /// Length of a period in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "max_bytes",
          value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    period: u64,
}

impl Cli {
    fn limit(&self) -> Option<Limit> {
        self.max_bytes.map(|max_bytes| Limit {
            max_bytes,
            period: Duration::from_millis(self.period),
        })
    }
}

const CAPABILITIES: Capabilities = Capabilities {
    device: "rng",
    features: &[],
};

fn main() -> ExitCode {
    let cli: Cli = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-rng", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let rng = Rng::open(&cli.source, cli.limit())?;
    Ok(cli.socket.open()?.serve_device(rng, shutdown)?)
}
