//! The command line of `outboard-net`.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, Parser};

use crate::cli::SocketArgs;
use crate::net::config::{MIN_MTU, MacAddress};
use crate::net::tap_name::TapName;
use crate::sandbox::SandboxArgs;

/// Connect a virtual machine to the network over vhost-user.
///
/// With --socket and --listen-fd it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-net", version)]
pub struct NetArgs {
    #[command(flatten)]
    pub socket: SocketArgs,

    #[command(flatten)]
    pub link: LinkArgs,

    /// Queue pairs, each with two threads; several need a tap
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=31))]
    pub queues: u16,

    /// Ethernet address of the guest [default: one that follows from the link]
    #[arg(long, value_name = "ADDRESS")]
    pub mac: Option<MacAddress>,

    /// MTU to announce to the guest and to set on the tap, in bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(i64::from(MIN_MTU)..))]
    pub mtu: Option<u16>,

    /// Microseconds to poll for the guest's next packet before a thread sleeps, where that pays; 0
    /// never polls
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=10_000))]
    pub poll_us: u64,

    /// Write all packets to a capture file
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,

    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

/// Where packets go.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct LinkArgs {
    /// Tap interface of the host; it is created if it does not exist, which needs CAP_NET_ADMIN
    #[arg(long, value_name = "NAME")]
    pub tap: Option<TapName>,

    /// Descriptor of an open tap, which this process inherits; several, separated by commas, are
    /// queue pairs of one tap
    #[arg(long, value_name = "N", value_delimiter = ',', num_args = 1,
          value_parser = clap::value_parser!(i32).range(0..))]
    pub tap_fd: Vec<RawFd>,

    /// Socket of a passt process: the user's network without any privilege
    #[arg(long, value_name = "SOCKET")]
    pub passt: Option<PathBuf>,

    /// Socket on which the peer, such as another outboard-net, connects
    #[arg(long, value_name = "PATH")]
    pub peer_listen: Option<PathBuf>,

    /// Socket on which the peer listens, now or later
    #[arg(long, value_name = "PATH")]
    pub peer_connect: Option<PathBuf>,
}
