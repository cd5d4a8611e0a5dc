//! The command line of `outboard-rng`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::cli::SocketArgs;
use crate::rng::limit::Limit;
use crate::sandbox::SandboxArgs;

/// Give a virtual machine random bytes over vhost-user.
///
/// With --socket and --listen-fd it serves one frontend after another until SIGTERM, SIGINT or SIGHUP. Log detail: RUST_LOG=debug.
#[derive(Debug, Parser)]
#[command(name = "outboard-rng", version)]
pub struct RngArgs {
    #[command(flatten)]
    pub socket: SocketArgs,

    /// Where the bytes come from. At the end of a regular file the guest waits
    #[arg(long, value_name = "FILE", default_value = "/dev/urandom")]
    pub source: PathBuf,

    /// Give the guest at most so many bytes in each period
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_bytes: Option<u64>,

    /// Length of a period in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "max_bytes",
          value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub period: u64,

    #[command(flatten)]
    pub sandbox: SandboxArgs,
}

impl RngArgs {
    pub fn limit(&self) -> Option<Limit> {
        self.max_bytes.map(|max_bytes| Limit {
            max_bytes,
            period: Duration::from_millis(self.period),
        })
    }
}
