//! The real gdb, in batch mode.

use std::path::Path;
use std::process::Command;

use crate::process::{Process, Stream};
use crate::{DEADLINE, program};

/// Runs gdb on `symbols` with `commands`, attached to `socket`, and returns what
/// it printed on standard output.
///
/// # Panics
/// gdb fails or does not end in time.
pub fn run(socket: &Path, symbols: &Path, commands: &[&str]) -> String {
    let mut process = start(socket, symbols, commands);
    process.expect_exit(0, DEADLINE);
    process.printed(Stream::Out)
}

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
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$@\" 2>&1", "sh"]);
    shell
        .arg(gdb.get_program())
        .args(gdb.get_args())
        .arg("-batch");
    Process::start("gdb", &mut shell)
}

/// Starts a gdb that stays when it has carried out `commands`.
pub fn open(socket: &Path, symbols: &Path, commands: &[&str]) -> Process {
    Process::start("gdb", &mut command(socket, symbols, commands))
}

fn command(socket: &Path, symbols: &Path, commands: &[&str]) -> Command {
    let mut command = Command::new(program::system("gdb"));
    // The kernel's own scripts lie beside vmlinux; tests load them when they want.
    command
        .args(["-nx", "-q", "-iex", "set auto-load no"])
        .args(setup());
    command
        .arg("-ex")
        .arg(format!("file {}", symbols.display()));
    command
        .arg("-ex")
        .arg(format!("target remote {}", socket.display()));
    for line in commands {
        command.args(["-ex", line]);
    }
    command
}

/// Settings that make gdb's output the same everywhere.
fn setup() -> [&'static str; 12] {
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
        "-ex",
        "set remotetimeout 30",
    ]
}
