//! Configurations that are refused.

use std::io;
use std::path::PathBuf;

use workbench::trace::faults::LoadError;

use super::on_panic;
use crate::{console, layout, memory};

/// Most vCPUs of a machine.
pub const MAX_CPUS: u8 = 64;

/// The user asked for something impossible.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no kernel given; use --kernel FILE or `kernel = \"FILE\"` in the configuration file")]
    NoKernel,
    #[error("cannot read configuration file {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("configuration file {}, line {line}: {problem}", path.display())]
    Toml {
        path: PathBuf,
        line: usize,
        problem: String,
    },
    #[error("configuration file {}, line {line}", path.display())]
    InFile {
        path: PathBuf,
        line: usize,
        #[source]
        source: Box<Error>,
    },
    #[error("this cannot be written as TOML")]
    Print(#[source] toml::ser::Error),
    #[error("{0} vCPUs were asked for; a machine has 1 to {MAX_CPUS}")]
    Cpus(u64),
    #[error(
        "memory size {0:?} is not a number with an optional K, M, G or T; write 512M, for example"
    )]
    MemorySyntax(String),
    #[error(
        "{asked} bytes of memory were asked for; a machine has {} MiB to {} GiB, in whole MiB",
        memory::MIN_SIZE >> 20, memory::MAX_SIZE >> 30
    )]
    MemorySize { asked: u64 },
    #[error("device {spec:?}: {problem}")]
    Device { spec: String, problem: String },
    #[error("two devices are named {0:?}; give one of them another name with id=")]
    DuplicateId(String),
    #[error("{asked} devices were asked for; this machine has room for {}", layout::VIRTIO_GSIS.len())]
    TooManyDevices { asked: usize },
    #[error(transparent)]
    Serial(#[from] console::ParseError),
    #[error(transparent)]
    Gdb(#[from] gdb::server::AddressError),
    #[error("--qmp {0:?} is not unix:PATH, a Unix socket to serve QMP on")]
    Qmp(String),
    #[error(transparent)]
    OnPanic(#[from] on_panic::ParseError),
    #[error("--gdb-kill needs --gdb ADDRESS to be asked through")]
    GdbKill,
    #[error("--gdb-wait needs --gdb ADDRESS to wait on")]
    WaitWithoutGdb,
    #[error("--rings is a part of --trace FILE and of --faults FILE; give one of them too")]
    RingsAlone,
    #[error("--seed is for --faults FILE; give that too")]
    SeedWithoutFaults,
    #[error(transparent)]
    Faults(#[from] LoadError),
    #[error("--symbols are for gdb; add --gdb ADDRESS to serve it")]
    SymbolsWithoutGdb,
}

impl Error {
    /// The key that is wrong.
    pub(super) fn key(&self) -> Option<&'static str> {
        Some(match self {
            Self::Cpus(_) => "cpus",
            Self::MemorySyntax(_) | Self::MemorySize { .. } => "memory",
            Self::Device { .. } | Self::DuplicateId(_) | Self::TooManyDevices { .. } => "device",
            Self::Serial(_) => "serial",
            Self::Gdb(_) => "gdb",
            Self::Qmp(_) => "qmp",
            Self::OnPanic(_) => "on-panic",
            Self::GdbKill => "gdb-kill",
            Self::WaitWithoutGdb => "gdb-wait",
            Self::RingsAlone => "rings",
            Self::SeedWithoutFaults => "seed",
            Self::Faults(_) => "faults",
            Self::SymbolsWithoutGdb => "symbols",
            Self::NoKernel
            | Self::File { .. }
            | Self::Toml { .. }
            | Self::InFile { .. }
            | Self::Print(_) => return None,
        })
    }
}
