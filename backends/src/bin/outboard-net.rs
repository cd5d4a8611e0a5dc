//! `outboard-net`: a tap interface, passt or a peer as a vhost-user network device.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use backends::capabilities::{self, Capabilities};
use backends::cli;
use backends::listener::Listener;
use backends::log;
use backends::net::args::{LinkArgs, NetArgs};
use backends::net::backend::NetDevice;
use backends::net::config::{MacAddress, NetConfig};
use backends::net::link::Link;
use backends::net::pcap::Capture;
use backends::net::stream::FrameStream;
use backends::net::tap::Tap;
use backends::peer::Meet;
use backends::sandbox::{Program, calls};
use backends::shutdown::Shutdown;

const CAPABILITIES: Capabilities = Capabilities {
    device: "net",
    features: &[],
};

const SANDBOX: Program = Program {
    name: "outboard-net",
    device: &[&calls::TAP],
};

fn main() -> ExitCode {
    let cli: NetArgs = capabilities::parse(CAPABILITIES);
    log::init();
    cli::exit("outboard-net", run(&cli))
}

fn run(cli: &NetArgs) -> anyhow::Result<()> {
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let meeting = cli.socket.open()?;
    let capture = cli.pcap.as_deref().map(|path| {
        Capture::create(path).with_context(|| format!("cannot create {}", path.display()))
    });
    let capture = capture.transpose()?;
    let poll_time = Duration::from_micros(cli.poll_us);
    if let Some(tap) = open_tap(cli)? {
        let config = config(cli, &format!("tap {}", tap.name()))?;
        tracing::debug!(tap = %tap.name(), pairs = tap.pairs(), "attached");
        cli.sandbox.raise(SANDBOX, meeting.files())?;
        let device = NetDevice::new(tap, config, capture);
        let device = device.context("the tap takes no packet headers")?;
        return Ok(meeting.serve_device(device.polling(poll_time), shutdown)?);
    }
    anyhow::ensure!(cli.queues == 1, "--queues {} needs --tap", cli.queues);
    let config = config(cli, &format!("{:?}", cli.link))?;
    let peer = meet(&cli.link)?;
    let files = match &cli.link.peer_listen {
        Some(path) => meeting.files().removable(path),
        None => meeting.files(),
    };
    cli.sandbox.raise(SANDBOX, files)?;
    let stream = FrameStream::start(peer).context("cannot look for the peer")?;
    let device = NetDevice::new(stream, config, capture)?;
    Ok(meeting.serve_device(device.polling(poll_time), shutdown)?)
}

/// The interface's configuration. Without `--mac`, its address follows from what `link` says.
fn config(cli: &NetArgs, link: &str) -> anyhow::Result<NetConfig> {
    let mac = match cli.mac {
        Some(mac) => mac,
        None => MacAddress::of_link(link).context("cannot make up an Ethernet address")?,
    };
    tracing::info!(link = ?cli.link, %mac, mtu = cli.mtu, queues = cli.queues,
        "serving an interface");
    let mtu = cli.mtu;
    Ok(NetConfig { mac, mtu })
}

/// How the other end of a stream is met.
fn meet(link: &LinkArgs) -> anyhow::Result<Meet> {
    match (&link.peer_listen, &link.peer_connect, &link.passt) {
        (Some(path), _, _) => Ok(Meet::Listen(Listener::bind(path)?)),
        (_, Some(path), _) | (_, _, Some(path)) => Ok(Meet::Connect(path.clone())),
        (None, None, None) => anyhow::bail!("no link was given"),
    }
}

/// Attaches to the tap, if it is one. Somebody may have made the privileged settings already for
/// an unprivileged user.
fn open_tap(cli: &NetArgs) -> anyhow::Result<Option<Tap>> {
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
