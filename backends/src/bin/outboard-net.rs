//! `outboard-net`: a tap interface, passt or a peer as a vhost-user network device.

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli::{self, SocketArgs};
use backends::listener::Listener;
use backends::log;
use backends::net::backend::NetDevice;
use backends::net::config::{MIN_MTU, MacAddress, NetConfig};
use backends::net::link::Link;
use backends::net::pcap::Capture;
use backends::net::stream::FrameStream;
use backends::net::tap::Tap;
use backends::net::tap_name::TapName;
use backends::peer::Meet;
use backends::shutdown::Shutdown;
use clap::{Args, Parser};

/// Connect a virtual machine to the network over vhost-user.
///
/// With --socket it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-net", version)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    #[command(flatten)]
    link: LinkArgs,

    /// Queue pairs, each with two threads; several need a tap
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=31))]
    queues: u16,

    /// Ethernet address of the guest [default: one that follows from the link]
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<MacAddress>,

    /// MTU to announce to the guest and to set on the tap, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    mtu: Option<u16>,

    /// Microseconds to poll for the guest's next packet before a thread sleeps, where that pays; 0
    /// never polls
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    poll_us: u64,

    /// Write all packets to a capture file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
}

/// Where packets go.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct LinkArgs {
    /// Tap interface of the host; it is created if it does not exist, which needs CAP_NET_ADMIN
    #[arg(long, value_name = "NAME")]
    tap: Option<TapName>,

    /// Descriptor of an open tap, which this process inherits; several, separated by commas, are
    /// queue pairs of one tap
    #[arg(long, value_name = "N", value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(i32).range(0..))]
    tap_fd: Vec<RawFd>,

    /// Socket of a passt process: the user's network without any privilege
    #[arg(long, value_name = "SOCKET")]
    passt: Option<PathBuf>,

    /// Socket on which the peer, such as another outboard-net, connects
    #[arg(long, value_name = "PATH")]
    peer_listen: Option<PathBuf>,

    /// Socket on which the peer listens, now or later
    #[arg(long, value_name = "PATH")]
    peer_connect: Option<PathBuf>,
}

const CAPABILITIES: Capabilities = Capabilities {
    device: "net",
    features: &[],
};

fn main() -> ExitCode {
    let cli: Cli = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-net", run(&cli))
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let meeting = cli.socket.open()?;
    let capture = cli.pcap.as_deref().map(|path| {
        Capture::create(path).with_context(|| format!("cannot create {}", path.display()))
    });
    let capture = capture.transpose()?;
    let poll_time = Duration::from_micros(cli.poll_us);
    if let Some(tap) = open_tap(cli)? {
        let config = cli.config(&format!("tap {}", tap.name()))?;
        tracing::debug!(tap = %tap.name(), pairs = tap.pairs(), "attached");
        let device = NetDevice::new(tap, config, capture);
        let device = device.context("the tap takes no packet headers")?;
        return Ok(meeting.serve_device(device.polling(poll_time), shutdown)?);
    }
    anyhow::ensure!(cli.queues == 1, "--queues {} needs --tap", cli.queues);
    let config = cli.config(&format!("{:?}", cli.link))?;
    let stream = FrameStream::start(cli.link.meet()?).context("cannot look for the peer")?;
    let device = NetDevice::new(stream, config, capture)?;
    Ok(meeting.serve_device(device.polling(poll_time), shutdown)?)
}

impl Cli {
    /// The interface's configuration. Without `--mac`, its address follows from what `link` says.
    fn config(&self, link: &str) -> anyhow::Result<NetConfig> {
        let mac = match self.mac {
            Some(mac) => mac,
            None => MacAddress::of_link(link).context("cannot make up an Ethernet address")?,
        };
        tracing::info!(link = ?self.link, %mac, mtu = self.mtu, queues = self.queues,
            "serving an interface");
        let mtu = self.mtu;
        Ok(NetConfig { mac, mtu })
    }
}

impl LinkArgs {
    /// How the other end of a stream is met.
    fn meet(&self) -> anyhow::Result<Meet> {
        match (&self.peer_listen, &self.peer_connect, &self.passt) {
            (Some(path), _, _) => Ok(Meet::Listen(Listener::bind(path)?)),
            (_, Some(path), _) | (_, _, Some(path)) => Ok(Meet::Connect(path.clone())),
            (None, None, None) => anyhow::bail!("no link was given"),
        }
    }
}

/// Attaches to the tap, if it is one. Somebody may have made the privileged settings already for
/// an unprivileged user.
fn open_tap(cli: &Cli) -> anyhow::Result<Option<Tap>> {
    let tap = match (&cli.link.tap, &cli.link.tap_fd[..]) {
        (Some(name), _) => Tap::open(name, cli.queues)?,
        (None, []) => return Ok(None),
        (None, fds) => {
            let text =
                "--queues is for --tap; with --tap-fd there are as many pairs as descriptors";
            anyhow::ensure!(cli.queues == 1, text);
            Tap::inherit(fds)?
        }
    };
    let name = tap.name();
    if let Some(mtu) = cli.mtu
        && let Err(error) = tap.set_mtu(mtu)
    {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "set it with: ip link set {name} mtu {mtu}");
    }
    if let Err(error) = tap.bring_up() {
        let error: &dyn std::error::Error = &error;
        tracing::warn!(error, "bring it up with: ip link set {name} up");
    }
    Ok(Some(tap))
}
