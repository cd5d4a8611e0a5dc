//! Commands as their users know them: what they run, where, and with which environment.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use guest_init::job::Job;

use crate::children;

/// What a shell says of a command that it cannot start.
pub const NOT_STARTED: u8 = 127;
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Runs the job's to its end, and gives its exit status as a shell would.
pub fn run(job: &Job) -> anyhow::Result<u8> {
    let mut command = command(&job.command, &job.directory, &job.environment);
    if job.window.is_none() {
        command.stdin(Stdio::null());
    }
    match children::spawn(&mut command) {
        Ok((_, status)) => Ok(children::reap_until(&status)?),
        Err(error) => {
            eprintln!(
                "outboard-init: cannot start {:?}: {error}",
                command.get_program()
            );
            Ok(NOT_STARTED)
        }
    }
}

/// Without words, a shell.
pub fn command(
    words: &[String],
    directory: &Path,
    environment: &BTreeMap<String, String>,
) -> Command {
    let mut command = match words.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => Command::new(shell(environment)),
    };
    command.env_clear().envs(environment);
    if directory.is_dir() {
        command.current_dir(directory);
    }
    command
}

/// The user's, if the guest has it.
fn shell(environment: &BTreeMap<String, String>) -> &str {
    let theirs = environment.get("SHELL").map(String::as_str);
    let mut shells = theirs.into_iter().chain(SHELLS);
    let found = shells.find(|shell| Path::new(shell).exists());
    found.unwrap_or("/bin/sh")
}
