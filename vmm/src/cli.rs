//! The raw command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use workbench::new_backend::NewBackendArgs;
use workbench::record::cli::RecordArgs;
use workbench::replay::cli::ReplayArgs;
use workbench::trace::cli::TraceArgs;

use crate::config::{GdbWait, OnReboot};
use crate::log::Format as LogFormat;
use crate::up::cli::{GdbArgs, ShellArgs, UpArgs};

/// A KVM virtual machine monitor for people who develop kernels and virtio devices.
#[derive(Debug, Parser)]
#[command(
    name = "outboard",
    version,
    max_term_width = 100,
    args_override_self = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a guest.
    ///
    /// Ends with status 0 when the guest powers off (or reboots under --on-reboot exit) or
    /// the user quits, 1 when the host fails, 2 on bad usage, 3 when the guest crashes (or
    /// panics, under --on-panic exit).
    /// SIGUSR1 prints exit counts and the state of the devices.
    Run(Box<RunArgs>),
    /// Boot a kernel on this host's files, and run a shell or a command there.
    ///
    /// What the guest changes is forgotten, but in the directories that --rw names. Ends with the
    /// command's status. `outboard gdb` attaches gdb from another terminal.
    Up(Box<UpArgs>),
    /// Start gdb on a machine that `outboard up` has started, with what its kernel tree has.
    Gdb(GdbArgs),
    /// Open a further shell in a machine that `outboard up` has started, or run a command there.
    ///
    /// Ends with the command's status.
    Shell(ShellArgs),
    /// Say what this host's KVM can do, and what gdb can therefore do.
    Doctor,
    /// Ask or tell a machine that runs with --api.
    Ctl(CtlArgs),
    /// Stand between a vhost-user frontend and its backend, and write down what they say.
    ///
    /// Both may be anybody's. Messages and descriptors are passed on as they are. Ends at
    /// SIGINT or SIGTERM, when the trace is whole.
    Trace(TraceArgs),
    /// Say in words why a device hangs: one of a machine that runs with --api, or one in a trace.
    ///
    /// Nothing that is looked at changes, and no backend is waited for.
    Explain(ExplainArgs),
    /// Keep what a guest asks of a vhost-user device, and what the device answers.
    ///
    /// Stands between a frontend and its backend until SIGINT or SIGTERM. A disk has to be copied
    /// before: a replay needs it as it was.
    Record(RecordArgs),
    /// Give a backend what a recording has, without a guest, and compare its answers.
    ///
    /// Ends with status 0 when all answers that can be compared are the same, 1 when one is not,
    /// 2 when the recording cannot be replayed.
    Replay(ReplayArgs),
    /// Write a crate that is a vhost-user backend, with tests and a Makefile.
    ///
    /// `make test check` in it tests the device without a guest, `make run` puts it under one, and
    /// `make restart` puts a rebuilt one under the guest that runs.
    NewBackend(NewBackendArgs),
}

#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// The socket of the machine's control API.
    #[arg(long, value_name = "PATH")]
    pub api: Option<PathBuf>,
    /// A trace in the form json or pcapng; with --api the name of a device [default: all devices].
    #[arg(value_name = "FILE|DEVICE", required_unless_present = "api")]
    pub what: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct CtlArgs {
    /// The socket of the machine's control API.
    #[arg(long, value_name = "PATH")]
    pub api: PathBuf,
    /// Print the machine's answer as JSON, for programs.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: CtlCommand,
}

#[derive(Debug, Subcommand)]
pub enum CtlCommand {
    /// Print vCPUs, devices, backends and counters.
    Status,
    /// Print what happens, an event a line, until the machine ends.
    Events,
    /// Stop all vCPUs and the guest's clock. Devices finish what they have.
    Pause,
    /// Resume the vCPUs.
    Resume,
    /// Print counters as Prometheus reads them.
    Metrics,
    /// Show what is logged, or log by another filter from here on (see --log).
    Log {
        /// For example info, or warn,devices=debug.
        filter: Option<String>,
    },
    /// Give each vCPU a non-maskable interrupt. Linux says so, or panics under
    /// unknown_nmi_panic=1.
    Nmi,
    /// Power-on again, also under --on-reboot exit. What was booted boots again.
    Reset {
        /// Read kernel and initrd again first. If they cannot be booted, the machine runs on.
        #[arg(long)]
        reload: bool,
    },
    /// End the machine at once, as SIGTERM does. The guest is not asked.
    Shutdown,
    /// Write RAM and registers to FILE, for crash, makedumpfile, drgn and gdb. A guest that runs
    /// is stopped meanwhile.
    Dump {
        /// In the kdump-compressed format, which gdb does not read.
        #[arg(short = 'z')]
        compress: bool,
        /// The machine writes it: a file that is there is replaced.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Detach gdb, for instance one whose machine is gone, and let the guest run.
    DetachGdb,
    /// Disconnect the backend of a device; the guest's requests wait for `connect`. One that was
    /// started from here is asked to end.
    Disconnect {
        /// The device's name.
        id: String,
    },
    /// Connect a backend again, or start it, after `disconnect`.
    Connect {
        /// The device's name.
        id: String,
    },
    /// Restart the backend of a device (exec="COMMAND"); the guest's requests wait.
    Restart {
        /// The device's name.
        id: String,
    },
}

#[derive(Args, Debug, Default)]
pub struct RunArgs {
    /// Kernel: vmlinux (ELF, PVH or 64-bit protocol), bzImage, or a bare-metal ELF file; of
    /// 32 bits too, if ELF with a PVH note.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk.
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line [default: console=ttyS0].
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Number of vCPUs, 1 to 64 [default: 1].
    #[arg(long, value_name = "N")]
    pub cpus: Option<u64>,
    /// Guest RAM, for example 512M or 6G; MiB without a suffix [default: 512M].
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// TOML file with the same keys as these options; options given here win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Check this command line and its --config FILE, print both as one such file, and run nothing.
    #[arg(long)]
    pub print_config: bool,
    /// A virtio device and its vhost-user backend:
    /// TYPE,socket=PATH[,queues=N][,queue-size=N][,id=NAME][,deadline=SECONDS]
    /// [,reconnect=off|SECONDS][,features=-NAME,-NAME...], with TYPE blk, net, fs, vsock, console, rng, ... or a virtio
    /// device number, and listen=PATH in place of socket=PATH where the backend is to connect.
    /// exec="COMMAND" starts the backend, starts it again when it ends, and stops it at the end:
    /// {fd} in COMMAND stands for a descriptor that is a connected socket, {listen-fd} for one
    /// that listens, {socket} for a path to listen on. Without any of them well-known programs
    /// (virtiofsd, qemu-storage-daemon, vhost-device-*, passt) get what they take, others --fd {fd}.
    /// A backend that does not answer within the deadline (5 seconds) loses its device, which
    /// then needs a reset; one that goes away is waited for, for ever if reconnect is not given; the features
    /// named (event_idx, indirect, ... and vhost-user's reply_ack, config, ...) are left out. May be given several times.
    #[arg(long, value_name = "SPEC")]
    pub device: Vec<String>,
    /// Serial console: stdio, none, pty, file=PATH or unix=PATH. On a terminal, Ctrl-A x
    /// quits, and Ctrl-A h shows what else there is [default: stdio].
    #[arg(long, value_name = "TARGET")]
    pub serial: Option<String>,
    /// Serve gdb on unix:PATH or HOST:PORT (loopback unless a host is named).
    #[arg(long, value_name = "ADDRESS")]
    pub gdb: Option<String>,
    /// Hold the guest before its first instruction until gdb lets it go, or, with `kernel`,
    /// where Linux has unpacked itself and found its place.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "start"
    )]
    pub gdb_wait: Option<GdbWait>,
    /// Let gdb's `kill` end the guest. Without it the guest runs on, as after `detach`.
    #[arg(long)]
    pub gdb_kill: bool,
    /// ELF file with the kernel's symbols, for gdb: the vmlinux of a bzImage. Without it gdb
    /// gets --kernel itself if that is ELF, or what symbols the guest's memory has.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// Serve the control API, HTTP and JSON, on this Unix socket (see `outboard ctl`).
    #[arg(long, value_name = "PATH")]
    pub api: Option<PathBuf>,
    /// Serve a part of QMP on this Unix socket, for tools that know QEMU (`drgn --qemu PATH`).
    #[arg(long, value_name = "unix:PATH")]
    pub qmp: Option<String>,
    /// Write down what is said to backends and what they say: a line a message, or JSON lines,
    /// pcapng or a timeline when the name ends with .jsonl, .pcapng or .json (see `outboard trace`).
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Let go wrong between devices and backends what this TOML file says (docs/trace.md), and
    /// print at the end what did, as such a file. Its devices are called as here, blk0 or by id=.
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Decides what --faults leaves open [default: the file's seed, or a new one].
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// With --trace, write down kicks, calls and requests too, and with --faults, let kicks and
    /// calls go wrong. They pass this program then, which takes time.
    #[arg(long)]
    pub rings: bool,
    /// What is logged, of backends too that are started from here: a level (error, warn, info,
    /// debug, trace), or levels by target, such as warn,devices=debug [default: $RUST_LOG, or warn].
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// Append log lines to this file. Without it they go to standard error, where reports of
    /// crashes and errors go in any case.
    #[arg(long, value_name = "PATH")]
    pub log_file: Option<PathBuf>,
    /// The form of log lines: text, or json for a JSON object a line [default: text].
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// What a guest's reboot does [default: reset].
    #[arg(long, value_enum, value_name = "ACTION")]
    pub on_reboot: Option<OnReboot>,
    /// What a guest's panic or crash does: stop (keep the guest, for gdb and `outboard ctl`), reset,
    /// or exit with status 3, each after a crash dump with ,dump=FILE, which is compressed with
    /// ,format=kdump,dump=FILE. A panic is one of a kernel with a driver for pvpanic [default: a
    /// panic does nothing, a crash exits].
    #[arg(long, value_name = "ACTION[[,format=kdump],dump=FILE]")]
    pub on_panic: Option<String>,
}
