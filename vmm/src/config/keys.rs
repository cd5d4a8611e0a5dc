//! A configuration as it is written: the keys of a TOML file, which are the options of the
//! command line.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::choices::{GdbWait, OnReboot};
use crate::cli::RunArgs;
use crate::log;

/// All keys, unchecked. Those that are not given are left out where it is written.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdb: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdb_wait: Option<GdbWaitKey>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gdb_kill: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symbols: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_reboot: Option<OnReboot>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_panic: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qmp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rings: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<log::Format>,
}

/// [`GdbWait`], or whether to wait at all.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged, expecting = "true, false, \"start\" or \"kernel\"")]
pub enum GdbWaitKey {
    Start(bool),
    Where(GdbWait),
}

impl GdbWaitKey {
    pub fn checked(self) -> Option<GdbWait> {
        match self {
            Self::Start(wait) => wait.then_some(GdbWait::Start),
            Self::Where(wait) => Some(wait),
        }
    }
}

impl Keys {
    /// Those of the command line.
    pub fn of(args: RunArgs) -> Self {
        Self {
            kernel: args.kernel,
            initrd: args.initrd,
            cmdline: args.cmdline,
            cpus: args.cpus,
            memory: args.memory,
            device: args.device,
            serial: args.serial,
            gdb: args.gdb,
            gdb_wait: args.gdb_wait.map(GdbWaitKey::Where),
            gdb_kill: args.gdb_kill.then_some(true),
            symbols: args.symbols,
            on_reboot: args.on_reboot,
            on_panic: args.on_panic,
            api: args.api,
            qmp: args.qmp,
            trace: args.trace,
            faults: args.faults,
            seed: args.seed,
            rings: args.rings.then_some(true),
            log: args.log,
            log_file: args.log_file,
            log_format: args.log_format,
        }
    }

    /// These, and what only `file` has; devices of both, the file's first.
    pub fn over(self, file: Self) -> Self {
        Self {
            kernel: self.kernel.or(file.kernel),
            initrd: self.initrd.or(file.initrd),
            cmdline: self.cmdline.or(file.cmdline),
            cpus: self.cpus.or(file.cpus),
            memory: self.memory.or(file.memory),
            device: [file.device, self.device].concat(),
            serial: self.serial.or(file.serial),
            gdb: self.gdb.or(file.gdb),
            gdb_wait: self.gdb_wait.or(file.gdb_wait),
            gdb_kill: self.gdb_kill.or(file.gdb_kill),
            symbols: self.symbols.or(file.symbols),
            on_reboot: self.on_reboot.or(file.on_reboot),
            on_panic: self.on_panic.or(file.on_panic),
            api: self.api.or(file.api),
            qmp: self.qmp.or(file.qmp),
            trace: self.trace.or(file.trace),
            faults: self.faults.or(file.faults),
            seed: self.seed.or(file.seed),
            rings: self.rings.or(file.rings),
            log: self.log.or(file.log),
            log_file: self.log_file.or(file.log_file),
            log_format: self.log_format.or(file.log_format),
        }
    }

    /// Whether the key with this name is given.
    pub fn has(&self, name: &str) -> bool {
        // What cannot be written is given.
        toml::Table::try_from(self).map_or(true, |table| table.contains_key(name))
    }
}
