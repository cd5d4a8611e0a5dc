//! The checked configuration of a machine. The command line and a TOML file give the same
//! type.

mod choices;
mod device;
mod error;
mod file;
mod keys;
mod on_panic;

use std::path::{Path, PathBuf};

use workbench::trace::faults::{self, Faults, LoadError};

use crate::cli::RunArgs;
use crate::{console, log, memory};

pub use choices::{GdbWait, OnReboot};
pub use device::Device;
pub use error::{Error, MAX_CPUS};
use file::File;
use keys::{GdbWaitKey, Keys};
pub use on_panic::{OnPanic, PanicAction, PanicDump};

const DEFAULT_MEMORY: u64 = 512 << 20;
/// So that a kernel given alone shows what it does.
const DEFAULT_CMDLINE: &str = "console=ttyS0";

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

impl TryFrom<RunArgs> for Config {
    type Error = Error;

    fn try_from(args: RunArgs) -> Result<Self, Error> {
        Ok(read(args)?.0)
    }
}

/// The configuration of a command line, as TOML. It is checked, too.
pub fn print(args: RunArgs) -> Result<String, Error> {
    let (_, keys) = read(args)?;
    toml::to_string(&keys).map_err(Error::Print)
}

/// The command line wins over the file; devices of both are used, the file's first.
fn read(mut args: RunArgs) -> Result<(Config, Keys), Error> {
    let file = args.config.take();
    let file = file.as_deref().map(File::read).transpose()?;
    let args = Keys::of(args);
    let Some(file) = file else {
        return Ok((check(args.clone())?, args));
    };
    let keys = args.clone().over(file.keys().clone());
    match check(keys.clone()) {
        Ok(config) => Ok((config, keys)),
        Err(error) => Err(file.locate(error, &args)),
    }
}

fn check(keys: Keys) -> Result<Config, Error> {
    let gdb = keys
        .gdb
        .map(|address| address.parse::<gdb::server::Address>());
    let gdb = gdb.transpose()?;
    let gdb_kill = keys.gdb_kill.unwrap_or(false);
    if gdb_kill && gdb.is_none() {
        return Err(Error::GdbKill);
    }
    let gdb_wait = keys.gdb_wait.and_then(GdbWaitKey::checked);
    if gdb_wait.is_some() && gdb.is_none() {
        return Err(Error::WaitWithoutGdb);
    }
    if keys.symbols.is_some() && gdb.is_none() {
        return Err(Error::SymbolsWithoutGdb);
    }
    let rings = keys.rings.unwrap_or(false);
    if rings && keys.trace.is_none() && keys.faults.is_none() {
        return Err(Error::RingsAlone);
    }
    if keys.seed.is_some() && keys.faults.is_none() {
        return Err(Error::SeedWithoutFaults);
    }
    let on_panic = keys.on_panic.map(|text| text.parse::<OnPanic>());
    let serial = keys.serial.map(|serial| serial.parse::<console::Target>());
    let devices = device::parse_all(&keys.device)?;
    let load = |path| load_faults(path, keys.seed, &devices, rings);
    let faults = keys.faults.as_deref().map(load).transpose()?;
    Ok(Config {
        kernel: keys.kernel.ok_or(Error::NoKernel)?,
        initrd: keys.initrd,
        cmdline: keys.cmdline.unwrap_or_else(|| DEFAULT_CMDLINE.into()),
        cpus: cpus(keys.cpus.unwrap_or(1))?,
        memory: keys.memory.as_deref().map_or(Ok(DEFAULT_MEMORY), memory)?,
        devices,
        api: keys.api,
        qmp: keys.qmp.map(qmp).transpose()?,
        serial: serial.transpose()?.unwrap_or_default(),
        gdb,
        gdb_wait,
        gdb_kill,
        symbols: keys.symbols,
        on_reboot: keys.on_reboot.unwrap_or_default(),
        on_panic: on_panic.transpose()?,
        trace: keys.trace,
        faults,
        rings,
        log: log::Options {
            filter: keys.log,
            file: keys.log_file,
            format: keys.log_format.unwrap_or_default(),
        },
    })
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
