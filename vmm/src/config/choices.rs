//! Choices that the command line and a configuration file write alike.

use serde::{Deserialize, Serialize};

/// What a guest's reboot does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// Boot again, in the same process.
    #[default]
    Reset,
    /// End with status 0.
    Exit,
}

/// Where the guest waits for gdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum GdbWait {
    /// Before its first instruction.
    Start,
    /// Where Linux has found its place.
    Kernel,
}
