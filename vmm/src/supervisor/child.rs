//! One process that serves a device.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, pidfd_open,
    set_parent_process_death_signal,
};

use super::environment;
use super::error::Error;
use super::output::Output;
use host_io::command::CommandLine;

/// How long a backend may take to end in order, before it is killed.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long a killed one may take to be gone.
const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// A running process. One that is dropped is killed.
pub struct Child {
    id: String,
    process: std::process::Child,
    group: Pid,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    output: Output,
    /// When it was asked to end.
    asked: Option<Instant>,
}

/// A process that is no more.
pub struct Ended {
    pub status: ExitStatus,
    pub last_line: Option<String>,
}

impl Child {
    /// Starts `command` with `value` in place of its placeholder, and `fd`, if
    /// there is one, open under the number it has here. It logs as `log` says.
    pub fn start(
        id: &str,
        command: &CommandLine,
        log: Option<&str>,
        value: &str,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Self, Error> {
        let host = |what| move |source| Error::Host { what, source };
        let (reader, writer) = io::pipe().map_err(host("a pipe for its output"))?;
        let errors = writer.try_clone().map_err(host("a pipe for its output"))?;
        let mut process = Command::new(find(command.program()));
        process
            .args(command.arguments(value))
            .env_clear()
            .envs(environment::kept())
            .envs(log.map(|log| ("RUST_LOG", log)))
            .stdin(Stdio::null())
            .stdout(writer)
            .stderr(errors)
            .process_group(0);
        let (parent, number) = (getpid(), fd.map(|fd| fd.as_raw_fd()));
        // SAFETY: `prepare` makes system calls only, which is all that is safe
        // between fork and exec; `fd` is open, as it is borrowed until then.
        unsafe { process.pre_exec(move || prepare(parent, number)) };
        let process = process.spawn().map_err(|source| {
            let program = command.program().to_owned();
            Error::Start { program, source }
        })?;
        let group = Pid::from_child(&process);
        let pidfd = pidfd_open(group, PidfdFlags::empty())
            .map_err(|error| host("a descriptor of its process")(error.into()))?;
        let pid = process.id();
        tracing::info!(device = id, pid, "the backend's process has started");
        let output = Output::log(id, reader).map_err(host("a thread for its output"))?;
        Ok(Self {
            id: id.to_owned(),
            process,
            group,
            pidfd,
            output,
            asked: None,
        })
    }

    /// The leader of its process group.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Whether it ends, or has ended, within `time`.
    pub fn ends_within(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(ready) => return ready == 1,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Asks it to end, once.
    pub fn ask_to_end(&mut self) {
        if self.asked.is_none() {
            self.asked = Some(Instant::now());
            self.signal(Signal::TERM);
        }
    }

    /// Whether it has ended. One that was asked to and takes too long is killed.
    pub fn is_ending(&mut self) -> bool {
        if self.ends_within(Duration::ZERO) {
            return true;
        }
        self.ask_to_end();
        if self.asked.is_some_and(|asked| asked.elapsed() > GRACE) {
            self.signal(Signal::KILL);
        }
        self.ends_within(Duration::ZERO)
    }

    /// Kills it; `false` when it still is not gone.
    pub fn kill(&mut self) -> bool {
        self.asked.get_or_insert_with(Instant::now);
        self.signal(Signal::KILL);
        self.ends_within(KILL_DEADLINE)
    }

    /// Waits for its end; kills it when the time is over.
    pub fn finish(mut self, within: Duration) {
        if !self.ends_within(within) {
            let device = &self.id;
            tracing::warn!(
                device,
                "the backend did not end when asked to, and is killed"
            );
            self.kill();
        }
        self.reap();
    }

    /// How it has ended, once it has. The rest of its group is killed too:
    /// until the process is waited for, the group's number is nobody else's.
    pub fn reap(mut self) -> Option<Ended> {
        self.signal(Signal::KILL);
        let status = self.process.try_wait().ok().flatten()?;
        let last_line = self.output.last_line();
        let device = &self.id;
        if self.asked.is_some() {
            tracing::info!(device, %status, "the backend's process has ended");
        } else {
            tracing::warn!(device, %status, last_line, "the backend's process has ended by itself");
        }
        Some(Ended { status, last_line })
    }

    fn signal(&self, signal: Signal) {
        // It may be gone, but has not been waited for.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Waited for already: the number may be another process's.
        if matches!(self.process.try_wait(), Ok(Some(_))) {
            return;
        }
        if self.kill() {
            let _ = self.process.try_wait();
        }
    }
}

/// Runs in the new process.
fn prepare(parent: Pid, fd: Option<RawFd>) -> io::Result<()> {
    // It does not outlive this program, however that ends.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::NotConnected.into());
    }
    // Another thread may be about to mark some descriptors as not inheritable.
    // SAFETY: takes no pointers, and closes nothing yet. Kernels before 5.11 refuse.
    unsafe { libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if let Some(fd) = fd {
        // SAFETY: the caller of the fork holds it open.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        fcntl_setfd(fd, FdFlags::empty())?;
    }
    Ok(())
}

/// A name that PATH does not have may be that of a program beside this one.
fn find(program: &str) -> PathBuf {
    let name = Path::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_bare = !program.contains('/');
    if is_bare && !std::env::split_paths(&path).any(|dir| dir.join(name).is_file()) {
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|own| Some(own.parent()?.join(name)));
        if let Some(beside) = beside.filter(|path| path.is_file()) {
            return beside;
        }
    }
    name.to_owned()
}
