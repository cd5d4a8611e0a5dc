//! What the end-to-end tests, the demo and the benchmarks share: starting the
//! programs of this project and others', and waiting for what they do.
//!
//! Every wait has a deadline, and says at its end what the program had printed.

pub mod backend;
pub mod gdb;
pub mod guest;
pub mod lldb;
pub mod network;
pub mod offer;
pub mod oracle;
pub mod process;
pub mod program;
pub mod qemu;
pub mod recording;
pub mod rsp;
pub mod sweep;
pub mod symbols;
pub mod unmet;
pub mod vmm;

use std::path::PathBuf;
use std::time::Duration;

/// How long anything may take that takes well under a second on a fast machine.
/// Generous, because these tests also run under two layers of emulation.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How often a test does something: `default` times, or as often as this
/// environment variable says (`make soak` sets some).
pub fn repetitions(variable: &str, default: u64) -> u64 {
    let asked = std::env::var(variable).ok();
    asked.map_or(default, |asked| {
        let number = asked.parse();
        number.unwrap_or_else(|_| panic!("{variable}={asked} is no number"))
    })
}

/// A directory for one test, removed with it.
pub fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("outboard-")
        .tempdir()
        .unwrap_or_else(|error| panic!("cannot make a scratch directory: {error}"))
}

/// Where downloads and built guests are kept.
pub fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into()));
    base.unwrap_or_else(|| home().join(".cache"))
        .join("outboard")
}
