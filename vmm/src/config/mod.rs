//! The checked configuration of a machine. The command line and a TOML file give the same
//! type.

mod choices;
mod device;
mod error;
mod on_panic;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use workbench::trace::faults::{self, Faults, LoadError};

use crate::cli::RunArgs;
use crate::{console, log, memory};

pub use choices::{GdbWait, OnReboot};
pub use device::Device;
pub use error::{Error, MAX_CPUS};
pub use on_panic::{OnPanic, PanicAction};

const DEFAULT_MEMORY: u64 = 512 << 20;
/// So that a kernel given alone shows what it does.
const DEFAULT_CMDLINE: &str = "console=ttyS0";

/// Longest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// [`GdbWait`] in a configuration file.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "true, false, \"start\" or \"kernel\"")]
enum FileGdbWait {
    Start(bool),
    Where(GdbWait),
}

impl FileGdbWait {
    fn checked(self) -> Option<GdbWait> {
        match self {
            Self::Start(wait) => wait.then_some(GdbWait::Start),
            Self::Where(wait) => Some(wait),
        }
    }
}

/// A machine to run.
#[derive(Debug)]
pub struct Config {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    pub cmdline: String,
    pub cpus: u8,
    /// In bytes.
    pub memory: u64,
    pub devices: Vec<Device>,
    /// Where the control API listens.
    pub api: Option<PathBuf>,
    /// Where QMP is served.
    pub qmp: Option<PathBuf>,
    pub serial: console::Target,
    pub gdb: Option<gdb::server::Address>,
    pub gdb_wait: Option<GdbWait>,
    pub gdb_kill: bool,
    /// ELF file with the kernel's symbols, for gdb.
    pub symbols: Option<PathBuf>,
    pub on_reboot: OnReboot,
    /// Without it, a panic is the guest's own affair, and a crash the machine's end.
    pub on_panic: Option<OnPanic>,
    /// Where to write down what is said to backends.
    pub trace: Option<PathBuf>,
    /// What goes wrong on purpose between devices and backends.
    pub faults: Option<Faults>,
    /// Kicks and calls are traced, and can have faults, too.
    pub rings: bool,
    pub log: log::Options,
}

/// The keys of a configuration file: those of the command line.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    kernel: Option<PathBuf>,
    initrd: Option<PathBuf>,
    cmdline: Option<String>,
    cpus: Option<u64>,
    memory: Option<String>,
    #[serde(default)]
    device: Vec<String>,
    serial: Option<String>,
    gdb: Option<String>,
    gdb_wait: Option<FileGdbWait>,
    gdb_kill: Option<bool>,
    symbols: Option<PathBuf>,
    on_reboot: Option<OnReboot>,
    on_panic: Option<String>,
    api: Option<PathBuf>,
    qmp: Option<String>,
    trace: Option<PathBuf>,
    faults: Option<PathBuf>,
    seed: Option<u32>,
    rings: Option<bool>,
    log: Option<String>,
    log_file: Option<PathBuf>,
    log_format: Option<log::Format>,
}

impl File {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = read_text(path).map_err(|source| Error::File {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text[..start].matches('\n').count() + 1;
            Error::Toml {
                path: path.to_owned(),
                line,
                problem: error.message().to_owned(),
            }
        })
    }
}

impl TryFrom<RunArgs> for Config {
    type Error = Error;

    /// The command line wins over the file; devices of both are used, the
    /// file's first.
    fn try_from(args: RunArgs) -> Result<Self, Error> {
        let file = args
            .config
            .as_deref()
            .map(File::read)
            .transpose()?
            .unwrap_or_default();
        let gdb = args
            .gdb
            .or(file.gdb)
            .map(|address| address.parse::<gdb::server::Address>())
            .transpose()?;
        let gdb_kill = args.gdb_kill || file.gdb_kill.unwrap_or(false);
        if gdb_kill && gdb.is_none() {
            return Err(Error::GdbKill);
        }
        let gdb_wait = file.gdb_wait.and_then(FileGdbWait::checked);
        let gdb_wait = args.gdb_wait.or(gdb_wait);
        if gdb_wait.is_some() && gdb.is_none() {
            return Err(Error::WaitWithoutGdb);
        }
        let symbols = args.symbols.or(file.symbols);
        if symbols.is_some() && gdb.is_none() {
            return Err(Error::SymbolsWithoutGdb);
        }
        let trace = args.trace.or(file.trace);
        let rings = args.rings || file.rings.unwrap_or(false);
        let faults = args.faults.or(file.faults);
        if rings && trace.is_none() && faults.is_none() {
            return Err(Error::RingsAlone);
        }
        let seed = args.seed.or(file.seed);
        if seed.is_some() && faults.is_none() {
            return Err(Error::SeedWithoutFaults);
        }
        let qmp = args.qmp.or(file.qmp).map(qmp).transpose()?;
        let on_panic = args.on_panic.or(file.on_panic);
        let on_panic = on_panic.map(|text| text.parse::<OnPanic>()).transpose()?;
        let specs: Vec<String> = file.device.into_iter().chain(args.device).collect();
        let serial = args
            .serial
            .or(file.serial)
            .map(|serial| serial.parse::<console::Target>())
            .transpose()?;
        let devices = device::parse_all(&specs)?;
        let load = |path| load_faults(path, seed, &devices, rings);
        let faults = faults.as_deref().map(load).transpose()?;
        Ok(Self {
            kernel: args.kernel.or(file.kernel).ok_or(Error::NoKernel)?,
            initrd: args.initrd.or(file.initrd),
            cmdline: args
                .cmdline
                .or(file.cmdline)
                .unwrap_or_else(|| DEFAULT_CMDLINE.into()),
            cpus: cpus(args.cpus.or(file.cpus).unwrap_or(1))?,
            memory: args
                .memory
                .or(file.memory)
                .as_deref()
                .map_or(Ok(DEFAULT_MEMORY), memory)?,
            devices,
            api: args.api.or(file.api),
            qmp,
            serial: serial.unwrap_or_default(),
            gdb,
            gdb_wait,
            gdb_kill,
            symbols,
            on_reboot: args.on_reboot.or(file.on_reboot).unwrap_or_default(),
            on_panic,
            trace,
            faults,
            rings,
            log: log::Options {
                filter: args.log.or(file.log),
                file: args.log_file.or(file.log_file),
                format: args.log_format.or(file.log_format).unwrap_or_default(),
            },
        })
    }
}

fn load_faults(
    path: &Path,
    seed: Option<u32>,
    devices: &[Device],
    has_rings: bool,
) -> Result<Faults, LoadError> {
    let names = devices.iter().map(|device| device.options.id.clone());
    faults::load(path, seed, names.collect(), has_rings)
}

/// A file of whatever kind, if it has an end.
fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        let problem = format!("it has more than {MAX_FILE} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}

/// `unix:PATH`; what QEMU takes behind a comma to have it served is so here anyway.
fn qmp(text: String) -> Result<PathBuf, Error> {
    let address = text.strip_prefix("unix:").unwrap_or_default();
    let mut parts = address.split(',');
    let path = parts.next().filter(|path| !path.is_empty());
    let server = ["server", "server=on", "wait=off", "nowait"];
    match path {
        Some(path) if parts.all(|part| server.contains(&part)) => Ok(path.into()),
        _ => Err(Error::Qmp(text)),
    }
}

fn cpus(asked: u64) -> Result<u8, Error> {
    u8::try_from(asked)
        .ok()
        .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
        .ok_or(Error::Cpus(asked))
}

/// A size such as `512M`; without a suffix it is in MiB, as in QEMU.
fn memory(text: &str) -> Result<u64, Error> {
    let syntax = || Error::MemorySyntax(text.to_owned());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "K" | "KB" | "KIB" => 10,
        "" | "M" | "MB" | "MIB" => 20,
        "G" | "GB" | "GIB" => 30,
        "T" | "TB" | "TIB" => 40,
        _ => return Err(syntax()),
    };
    let number: u64 = digits.parse().map_err(|_| syntax())?;
    let asked = number
        .checked_mul(1 << shift)
        .ok_or(Error::MemorySize { asked: u64::MAX })?;
    let in_range = (memory::MIN_SIZE..=memory::MAX_SIZE).contains(&asked);
    if !in_range || !asked.is_multiple_of(1 << 20) {
        return Err(Error::MemorySize { asked });
    }
    Ok(asked)
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;
