//! The command line of `outboard-check`.

use std::path::PathBuf;

use clap::{Args, Parser, ValueEnum};

use crate::device::DeviceType;

/// Checks a vhost-user backend against the vhost-user document and virtio 1.4, without a guest;
/// or a frontend, with whatever guest it has.
///
/// For a backend it plays the frontend and the driver. Checks may write to the device, and put
/// back what was there: use a disk that you can lose. For a frontend it plays the backend, with a
/// small device. The exit status is 0 when all checks that apply passed, 1 when one failed or could
/// not be tried, 2 when nothing could be checked.
#[derive(Debug, Parser)]
#[command(name = "outboard-check", version)]
pub struct CheckArgs {
    /// Check a frontend, a VMM for instance
    #[arg(long, conflicts_with_all = ["socket", "seed"])]
    pub frontend: bool,

    #[command(flatten)]
    pub place: Place,

    /// Type of the device: blk, net, rng, …, or its number
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "list")]
    pub device_type: Option<DeviceType>,

    /// Run only checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub only: Vec<String>,

    /// Do not run checks with these names; * is any text
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub skip: Vec<String>,

    /// What checks that act at random begin with; a failure shows it
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// How the findings are written to standard output
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,

    /// List the checks with their rules, and end
    #[arg(long)]
    pub list: bool,
}

/// Where the backend is, or the frontend.
#[derive(Debug, Args)]
#[group(required = false, multiple = false)]
pub struct Place {
    /// Connect to a backend that listens there, and serves one connection after another
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Start a backend for each check; its socket goes where the command has {fd}, {listen-fd} or
    /// {socket}. A frontend connects to {socket}
    #[arg(long, value_name = "COMMAND")]
    pub exec: Option<String>,

    /// Wait for a frontend there, and look at what it does until it leaves, or until Ctrl-C
    #[arg(long, value_name = "PATH", requires = "frontend")]
    pub listen: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
    Junit,
}
