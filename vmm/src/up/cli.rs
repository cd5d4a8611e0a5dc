//! The command lines of `outboard up` and `outboard gdb`.

use std::path::PathBuf;

use clap::Args;

use crate::config::GdbWait;

#[derive(Args, Debug)]
pub struct UpArgs {
    /// Kernel tree (with arch/x86/boot/bzImage), or kernel image [default: this host's kernel].
    #[arg(value_name = "TREE")]
    pub kernel: Option<PathBuf>,
    /// The guest's root: a directory, or the image of a file system. Neither is changed.
    #[arg(long, value_name = "DIR|IMAGE", default_value = "/")]
    pub root: PathBuf,
    /// A directory of this host that the guest may change, at the same path. May be given several
    /// times.
    #[arg(long, value_name = "DIR")]
    pub rw: Vec<PathBuf>,
    /// What the machine is called [default: the last word of TREE].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Number of vCPUs [default: one for each processor of this host].
    #[arg(long, value_name = "N")]
    pub cpus: Option<u64>,
    /// Guest RAM.
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    pub memory: String,
    /// Give the guest a network by passt, which shares this host's.
    #[arg(long)]
    pub net: bool,
    /// More words for the kernel command line.
    #[arg(long, value_name = "STR", allow_hyphen_values = true)]
    pub cmdline: Option<String>,
    /// Further virtio devices, as in `outboard run`.
    #[arg(long, value_name = "SPEC")]
    pub device: Vec<String>,
    /// Hold the guest until gdb lets it go: before its first instruction or, with `kernel`, where
    /// Linux has found its place.
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "start"
    )]
    pub gdb_wait: Option<GdbWait>,
    /// What a panic or a crash of the guest does, as in `outboard run`.
    #[arg(long, value_name = "ACTION[,dump=FILE]", default_value = "exit")]
    pub on_panic: String,
    /// Show what the kernel says at its start.
    #[arg(long, short)]
    pub verbose: bool,
    /// What the guest runs, as root; its exit status becomes this program's. It has no input
    /// unless standard input is a terminal [default: a shell].
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

#[derive(Args, Debug)]
pub struct GdbArgs {
    /// The machine [default: the only one that runs].
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// Further arguments for gdb, such as -ex 'break FUNCTION'.
    #[arg(last = true, value_name = "ARGUMENT")]
    pub arguments: Vec<String>,
}

#[derive(Args, Debug)]
pub struct ShellArgs {
    /// The machine [default: the only one that runs].
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
    /// What the guest runs [default: a shell].
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
