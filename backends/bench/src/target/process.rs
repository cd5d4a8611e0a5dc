//! A backend's process.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use host_io::command::CommandLine;
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::set_parent_process_death_signal;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use super::error::TargetError;
use super::exit::Exit;
use crate::driver::wait_readable;

/// Lines of output that are kept.
const LINES: usize = 12;
/// How long a process may take to end once its connection is closed, or when it is asked to.
pub const GRACE: Duration = Duration::from_secs(2);

/// A running process in a group of its own. One that is dropped is killed.
#[derive(Debug)]
pub struct Process {
    program: String,
    hint: &'static str,
    child: Child,
    group: Pid,
    pidfd: OwnedFd,
    lines: Arc<Mutex<VecDeque<String>>>,
    reader: Option<JoinHandle<()>>,
    exit: Option<Exit>,
}

impl Process {
    /// Starts it with `value` in place of the placeholder, and `fd` open under its number.
    pub fn start(
        line: &CommandLine,
        value: &str,
        fd: Option<&impl AsFd>,
    ) -> Result<Self, TargetError> {
        let (output, writer) = io::pipe()?;
        let mut command = Command::new(line.program());
        command
            .args(line.arguments(value))
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0);
        let number = fd.map(|fd| fd.as_fd().as_raw_fd());
        let prepare = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            if let Some(number) = number {
                // SAFETY: the caller borrows the descriptor, which is open in the child too.
                let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(number) };
                fcntl_setfd(fd, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: `prepare` makes system calls only, which is all that is safe between fork and
        // exec.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().map_err(|source| TargetError::Start {
            program: line.program().to_owned(),
            source,
        })?;
        drop(command);
        let group = Pid::from_child(&child);
        let pidfd = pidfd_open(group, PidfdFlags::empty()).map_err(io::Error::from)?;
        let lines = Arc::default();
        let reader = std::thread::Builder::new().spawn(keep_lines(output, &lines))?;
        Ok(Self {
            program: line.program().to_owned(),
            hint: line.hint(),
            child,
            group,
            pidfd,
            lines,
            reader: Some(reader),
            exit: None,
        })
    }

    pub fn program(&self) -> &str {
        &self.program
    }

    /// Advice for the user if the program does not serve.
    pub fn hint(&self) -> &'static str {
        self.hint
    }

    /// How it has ended, if it does so within `time`.
    pub fn exit_within(&mut self, time: Duration) -> Option<Exit> {
        if self.exit.is_none() && wait_readable(&self.pidfd, time).unwrap_or(false) {
            self.exit = self.child.wait().ok().map(Exit::new);
        }
        self.exit
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if self.exit.is_none() {
            let _ = kill_process_group(self.group, Signal::KILL);
            self.exit_within(GRACE);
        }
    }

    /// SIGTERM.
    pub fn ask_to_end(&mut self) {
        if self.exit_within(Duration::ZERO).is_none() {
            let _ = kill_process_group(self.group, Signal::TERM);
        }
    }

    /// Ends it as QEMU does: SIGTERM, and SIGKILL for one that takes longer than `grace`. Returns
    /// how it ended by itself, if it did.
    pub fn finish(&mut self, grace: Duration) -> Option<Exit> {
        self.ask_to_end();
        let exit = self.exit_within(grace);
        self.kill();
        exit
    }

    /// The last lines that it printed.
    pub fn last_lines(&mut self) -> Vec<String> {
        if self.exit.is_some() {
            self.wait_output();
        }
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    /// What it printed last may still be on its way. A descendant may keep the pipe open.
    fn wait_output(&mut self) {
        let end = Instant::now() + Duration::from_millis(200);
        while self
            .reader
            .as_ref()
            .is_some_and(|reader| !reader.is_finished())
        {
            if Instant::now() > end {
                return;
            }
            std::thread::yield_now();
        }
    }
}

fn keep_lines(
    output: PipeReader,
    lines: &Arc<Mutex<VecDeque<String>>>,
) -> impl FnOnce() + Send + use<> {
    let lines = Arc::clone(lines);
    move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output
            .read_until(b'\n', &mut line)
            .is_ok_and(|count| count > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push_back(text);
            if lines.len() > LINES {
                lines.pop_front();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
