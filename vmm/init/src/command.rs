//! Runs the command, as the first process has to: it also waits for processes that have lost
//! their parents.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use guest_init::job::Job;
use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};

/// What a shell says of a command that it cannot start.
const NOT_STARTED: i32 = 127;
/// What a shell adds to a signal's number.
const SIGNALLED: i32 = 128;
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];

/// Runs it to its end, and gives its exit status as a shell would.
pub fn run(job: &Job) -> anyhow::Result<i32> {
    let (program, arguments) = words(job);
    let mut command = Command::new(&program);
    command.args(arguments);
    command.env_clear().envs(&job.environment);
    if job.directory.is_dir() {
        command.current_dir(&job.directory);
    }
    if job.window.is_none() {
        command.stdin(Stdio::null());
    }
    let child = match command.spawn() {
        Ok(child) => child.id(),
        Err(error) => {
            eprintln!("outboard-init: cannot start {program}: {error}");
            return Ok(NOT_STARTED);
        }
    };
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() as u32 == child => {
                let status = ExitStatus::from_raw(status.as_raw());
                let signal = status.signal().map(|signal| SIGNALLED + signal);
                return Ok(status.code().or(signal).unwrap_or(NOT_STARTED));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn words(job: &Job) -> (String, &[String]) {
    match job.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments),
        None => (shell(job), &[]),
    }
}

/// The user's, if the guest has it.
fn shell(job: &Job) -> String {
    let theirs = job.environment.get("SHELL").map(String::as_str);
    let mut shells = theirs.into_iter().chain(SHELLS);
    let found = shells.find(|shell| Path::new(shell).exists());
    found.unwrap_or("/bin/sh").to_owned()
}
