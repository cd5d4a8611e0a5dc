//! `outboard up`: from a kernel tree to a shell, or to a command's exit status.
//!
//! The guest's root is the host's own files, by virtiofs and below a layer in memory. What the
//! kernel needs to get there is in an initial RAM disk made for this one start: the program
//! `outboard-init`, the kernel's modules, and a [`job`].

pub mod cli;
mod error;
mod gdb;
mod initramfs;
pub use guest_init::job;
mod kernel;
mod machines;
mod modules;
mod share;
mod shell;
mod surroundings;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use crate::cli::RunArgs;
use crate::config::{MAX_CPUS, OnReboot};
use crate::host;
use cli::UpArgs;
pub use error::Error;
pub use gdb::attach;
use initramfs::Initramfs;
use job::{Job, Root};
use kernel::Kernel;
use machines::{Description, Directory};
use modules::{Driver, Index};
use share::Shares;
pub use shell::run as shell;
use surroundings::{environment, window};

const CMDLINE: &str = "console=ttyS0 panic=-1";
/// Only what is worse than an error: x86 calls it one that there is no PCI bus.
const QUIET: &str = " loglevel=3";
/// Of a machine that nobody gave a name or a tree.
const NAME: &str = "linux";
const INIT: &str = "outboard-init";

const BUS: Driver = driver("virtio_mmio", "CONFIG_VIRTIO_MMIO");
const SHARED: Driver = driver("virtiofs", "CONFIG_VIRTIO_FS");
const LAYER: Driver = driver("overlay", "CONFIG_OVERLAY_FS");
const DISK: Driver = driver("virtio_blk", "CONFIG_VIRTIO_BLK");
const DISK_FILES: Driver = driver("ext4", "CONFIG_EXT4_FS");
const NETWORK: Driver = driver("virtio_net", "CONFIG_VIRTIO_NET");
/// Without it there are no further shells.
const STREAMS: Driver = driver("vmw_vsock_virtio_transport", "CONFIG_VIRTIO_VSOCKETS");
/// Without it, a panic is a reboot like any other.
const PANIC: Driver = driver("pvpanic_mmio", "CONFIG_PVPANIC_MMIO");

const fn driver(name: &'static str, option: &'static str) -> Driver {
    Driver { name, option }
}

/// A machine that is ready to run.
#[derive(Debug)]
pub struct Up {
    directory: Directory,
    args: RunArgs,
    has_command: bool,
}

impl Up {
    /// Finds all that the machine needs, and writes what it reads at its start.
    pub fn prepare(args: UpArgs) -> Result<Self, Error> {
        host::can_run_linux().map_err(|module| Error::CannotRunLinux { module })?;
        let kernel = Kernel::find(args.kernel.as_deref())?;
        let index = Index::read(&kernel)?;
        let wanted = args.name.clone().unwrap_or_else(|| default_name(&args));
        let directory = Directory::take(&machines::base()?, &wanted, args.name.is_some())?;
        let shares = Shares::of(&args, directory.path())?;
        let streams = share::streams(directory.path())?.filter(|_| index.has(STREAMS));
        let modules = index.resolve(&drivers(&shares, &index))?;
        let job = Job {
            name: directory.name(),
            modules: modules.iter().map(|path| file_name(path)).collect(),
            root: shares.root,
            writable: shares.writable,
            command: args.command.clone(),
            directory: surroundings::directory(),
            environment: environment(),
            window: window(),
            network: shares.network,
            has_shells: streams.is_some(),
        };
        let initrd = directory.path().join("initramfs");
        let initramfs = Initramfs {
            init: &init()?,
            modules: &modules,
            job: &job,
        };
        initramfs.write(&initrd)?;
        directory.describe(&Description {
            vmlinux: kernel.vmlinux.clone(),
            has_shells: streams.is_some(),
        })?;
        let mut devices = shares.devices;
        devices.extend(streams);
        devices.extend(args.device.iter().cloned());
        Ok(Self {
            has_command: !args.command.is_empty(),
            args: run_args(args, kernel, initrd, devices, &directory),
            directory,
        })
    }

    pub fn name(&self) -> String {
        self.directory.name()
    }

    /// What `outboard run` would be given.
    pub fn take_args(&mut self) -> RunArgs {
        std::mem::take(&mut self.args)
    }

    /// The command's exit status, once the machine has ended. A shell's guest may have been
    /// powered off from within.
    pub fn status(&self) -> Result<u8, Error> {
        let path = self
            .directory
            .path()
            .join(job::ANSWER_TAG)
            .join(job::ANSWER);
        let answer = fs::read_to_string(&path).ok();
        let status = answer.and_then(|text| text.trim().parse().ok());
        match status {
            Some(status) => Ok(status),
            None if self.has_command => Err(Error::NoAnswer),
            None => Ok(0),
        }
    }
}

fn run_args(
    args: UpArgs,
    kernel: Kernel,
    initrd: PathBuf,
    device: Vec<String>,
    directory: &Directory,
) -> RunArgs {
    let quiet = if args.verbose { "" } else { QUIET };
    let more = args
        .cmdline
        .map(|more| format!(" {more}"))
        .unwrap_or_default();
    let processors = thread::available_parallelism().map_or(1, |number| number.get() as u64);
    RunArgs {
        kernel: Some(kernel.image),
        initrd: Some(initrd),
        cmdline: Some(format!("{CMDLINE}{quiet}{more}")),
        cpus: Some(args.cpus.unwrap_or(processors.min(MAX_CPUS.into()))),
        memory: Some(args.memory),
        device,
        gdb: Some(format!(
            "unix:{}",
            directory.path().join(gdb::SOCKET).display()
        )),
        gdb_wait: args.gdb_wait,
        symbols: kernel.vmlinux,
        api: Some(directory.path().join("api")),
        on_reboot: Some(OnReboot::Exit),
        on_panic: Some(args.on_panic),
        ..RunArgs::default()
    }
}

fn drivers(shares: &Shares, index: &Index) -> Vec<Driver> {
    let mut drivers = vec![BUS, SHARED, LAYER];
    if shares.root == Root::Disk {
        drivers.extend([DISK, DISK_FILES]);
    }
    if shares.network.is_some() {
        drivers.push(NETWORK);
    }
    let optional = [PANIC, STREAMS].into_iter();
    drivers.extend(optional.filter(|driver| index.has(*driver)));
    drivers
}

/// The program beside this one.
fn init() -> Result<PathBuf, Error> {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(INIT)));
    beside
        .filter(|path| path.is_file())
        .ok_or(Error::NoProgram {
            name: INIT,
            advice: "it is built with outboard and has to lie beside it",
        })
}

fn default_name(args: &UpArgs) -> String {
    let path = args
        .kernel
        .as_deref()
        .and_then(|path| path.canonicalize().ok());
    let name = path.as_deref().map(file_name).unwrap_or_default();
    let allowed = name.replace(
        |c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c),
        "-",
    );
    let name = allowed.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    if name.is_empty() {
        NAME.into()
    } else {
        name.chars().take(32).collect()
    }
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
