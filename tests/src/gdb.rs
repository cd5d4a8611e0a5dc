//! The real gdb, in batch mode.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Stream};
use crate::program;

/// Runs gdb on `symbols` with `commands`, attached to `socket`, and returns what
/// it printed on standard output.
///
/// # Panics
/// gdb fails or does not end in time.
pub fn run(socket: &Path, symbols: &Path, commands: &[&str]) -> String {
    let mut process = start(socket, symbols, commands);
    process.expect_exit(0, PATIENCE);
    process.printed(Stream::Out)
}

/// How long gdb may take with a kernel's symbols, read through the connection and
/// under emulation.
const PATIENCE: Duration = Duration::from_secs(240);

/// Where gdb reads the file that `outboard` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysroot {
    /// Through the connection, as it does if nobody tells it otherwise.
    Guest,
    /// On this machine: faster, for large files.
    Host,
}

/// Runs gdb as [`run`] does, but without a file: what it knows of the guest's
/// symbols it has from `outboard`. What it prints as errors is among the rest.
pub fn run_alone(socket: &Path, sysroot: Sysroot, commands: &[&str]) -> String {
    let mut gdb = base();
    if sysroot == Sysroot::Host {
        gdb.args(["-ex", "set sysroot /"]);
    }
    attach(&mut gdb, socket, commands);
    let mut process = Process::start("gdb", merged(&gdb).arg("-batch"));
    process.expect_exit(0, PATIENCE);
    process.printed(Stream::Out)
}

/// How often gdb attaches until the kernel's types are there: under emulation reading them
/// takes longer than gdb waits.
const ATTEMPTS: usize = 10;

/// Runs gdb as [`run_alone`] does, on a Linux kernel, again and again until it gets the
/// kernel's types.
pub fn run_with_types(socket: &Path, commands: &[&str]) -> Option<String> {
    let commands = [&["whatis init_task"], commands].concat();
    let attach = || run_alone(socket, Sysroot::Guest, &commands);
    let mut outputs = (0..ATTEMPTS).map(|_| attach());
    outputs.find(|output| output.contains("type = struct task_struct\n"))
}

/// Runs gdb with `commands` and no machine, and returns what it printed on both streams.
///
/// # Panics
/// gdb fails or does not end in time.
pub fn run_offline(commands: &[&str]) -> String {
    let mut gdb = base();
    for line in commands {
        gdb.args(["-ex", line]);
    }
    let mut process = Process::start("gdb", merged(&gdb).arg("-batch"));
    process.expect_exit(0, PATIENCE);
    process.printed(Stream::Out)
}

/// These commands with what a user would see of them: each behind gdb's prompt, before
/// what it prints.
pub fn shown(commands: &[&str]) -> Vec<String> {
    let pairs = commands
        .iter()
        .map(|typed| [format!("echo {PROMPT}{typed}\\n"), (*typed).to_owned()]);
    pairs.flatten().collect()
}

pub const PROMPT: &str = "(gdb) ";

/// Starts gdb as [`run`] does.
pub fn start(socket: &Path, symbols: &Path, commands: &[&str]) -> Process {
    let mut command = command(socket, symbols, commands);
    command.arg("-batch");
    Process::start("gdb", &mut command)
}

/// Starts gdb as [`start`] does, with what it prints as errors among the rest, in
/// the order in which it printed both.
pub fn start_merged(socket: &Path, symbols: &Path, commands: &[&str]) -> Process {
    let gdb = command(socket, symbols, commands);
    Process::start("gdb", merged(&gdb).arg("-batch"))
}

/// `gdb` with both its streams on standard output.
fn merged(gdb: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]);
    shell.arg(gdb.get_program()).args(gdb.get_args());
    shell
}

/// What the newer gdb of [`newer`] prints, on both streams, for `commands` when it is
/// attached without a file.
pub fn run_newer(socket: &Path, commands: &[&str]) -> String {
    let mut gdb = configured(newer());
    attach(&mut gdb, socket, commands);
    let mut process = Process::start("gdb", merged(&gdb).arg("-batch"));
    process.expect_exit(0, PATIENCE);
    process.printed(Stream::Out)
}

/// A gdb beside the system's, which may be some years old.
fn newer() -> Command {
    Command::new(program::cached("gdb-newer/gdb"))
}

/// Starts a gdb that stays when it has carried out `commands`.
pub fn open(socket: &Path, symbols: &Path, commands: &[&str]) -> Process {
    Process::start("gdb", &mut command(socket, symbols, commands))
}

/// The same without a file, and with what it prints as errors among the rest.
pub fn open_alone(socket: &Path, commands: &[&str]) -> Process {
    open_of(base(), socket, commands)
}

/// The same of the newer gdb of [`newer`].
pub fn open_newer(socket: &Path, commands: &[&str]) -> Process {
    open_of(configured(newer()), socket, commands)
}

fn open_of(mut gdb: Command, socket: &Path, commands: &[&str]) -> Process {
    attach(&mut gdb, socket, commands);
    Process::start("gdb", &mut merged(&gdb))
}

/// The same with what it prints as errors among the rest.
pub fn open_merged(socket: &Path, symbols: &Path, commands: &[&str]) -> Process {
    let gdb = command(socket, symbols, commands);
    Process::start("gdb", &mut merged(&gdb))
}

fn command(socket: &Path, symbols: &Path, commands: &[&str]) -> Command {
    let mut command = base();
    command
        .arg("-ex")
        .arg(format!("file {}", symbols.display()));
    attach(&mut command, socket, commands);
    command
}

fn base() -> Command {
    configured(Command::new(program::system("gdb")))
}

fn configured(mut command: Command) -> Command {
    // The kernel's own scripts lie beside vmlinux; tests load them when they want.
    command
        .args(["-nx", "-q", "-iex", "set auto-load no"])
        .args(setup());
    command
}

fn attach(gdb: &mut Command, socket: &Path, commands: &[&str]) {
    gdb.arg("-ex")
        .arg(format!("target remote {}", socket.display()));
    for line in commands {
        gdb.args(["-ex", line]);
    }
}

/// Settings that make gdb's output the same everywhere. All others are gdb's own.
fn setup() -> [&'static str; 10] {
    [
        "-ex",
        "set confirm off",
        "-ex",
        "set pagination off",
        "-ex",
        "set width 0",
        "-ex",
        "set height 0",
        "-ex",
        "set style enabled off",
    ]
}
