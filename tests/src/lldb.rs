//! The real LLDB, in batch mode.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, Stream};
use crate::program;

/// Runs LLDB on `file`, attached to `socket`, with `commands`, and returns what it printed
/// on standard output.
///
/// # Panics
/// LLDB fails or does not end in `patience`.
pub fn run(socket: &Path, file: &Path, patience: Duration, commands: &[&str]) -> String {
    let mut command = Command::new(program::system("lldb"));
    command.args(["--no-lldbinit", "--batch", "--no-use-colors"]);
    let create = format!("target create {}", file.display());
    let connect = format!("process connect unix-connect://{}", socket.display());
    for line in [create.as_str(), &connect].iter().chain(commands) {
        command.args(["-o", line]);
    }
    let mut process = Process::start("lldb", &mut command);
    process.expect_exit(0, patience);
    process.printed(Stream::Out)
}

/// Expects `part` in what LLDB printed between the echo of `command` and that of the next.
#[track_caller]
pub fn expect(output: &str, command: &str, part: &str) {
    let prompt = format!("(lldb) {command}\n");
    let Some((_, rest)) = output.split_once(&prompt) else {
        panic!("no {command:?} in\n{output}");
    };
    let answer = rest.split("(lldb) ").next().unwrap_or_default();
    assert!(
        answer.contains(part),
        "no {part:?} behind {command:?}\n{output}"
    );
}
