//! `outboard-net`: a tap interface as a vhost-user network device.

use std::process::ExitCode;

use anyhow::Context;
use backends::cli::{self, SocketArgs};
use backends::net::backend::NetDevice;
use backends::net::config::{MIN_MTU, MacAddress, NetConfig};
use backends::net::tap::{Tap, TapName};
use backends::shutdown::Shutdown;
use clap::Parser;

/// Connect a virtual machine to the network over vhost-user.
///
/// With --socket it serves one frontend after another until SIGTERM or SIGINT. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-net", version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    /// Tap interface of the host; it is created if it does not exist, which needs CAP_NET_ADMIN
    #[arg(long, value_name = "NAME")]
    tap: TapName,

    /// Ethernet address of the guest [default: a random one]
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<MacAddress>,

    /// MTU to announce to the guest and to set on the tap, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    mtu: Option<u16>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli::init_logging();
    cli::exit("outboard-net", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let config = NetConfig {
        mac: match cli.mac {
            Some(mac) => mac,
            None => MacAddress::random().context("cannot make up an Ethernet address")?,
        },
        mtu: cli.mtu,
    };
    let meeting = cli.socket.open()?;
    let tap = open_tap(cli)?;
    tracing::info!(tap = %tap.name(), mac = %config.mac, mtu = config.mtu, "serving an interface");
    let device = NetDevice::new(tap, config).context("the tap takes no packet headers")?;
    Ok(meeting.serve_device(device, shutdown)?)
}

/// Attaches to the tap. What an unprivileged user cannot set may have been set for him.
fn open_tap(cli: &Cli) -> anyhow::Result<Tap> {
    let tap = Tap::open(&cli.tap)?;
    if let Some(mtu) = cli.mtu
        && let Err(error) = tap.set_mtu(mtu)
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "set it with: ip link set {} mtu {mtu}", cli.tap);
    }
    if let Err(error) = tap.bring_up() {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "bring it up with: ip link set {} up", cli.tap);
    }
    Ok(tap)
}
