//! Walls around a backend: what is left to a guest or a frontend that has taken it over.
//!
//! A program raises them when it has opened what it was given ([`SandboxArgs::raise`]), before it
//! starts threads; each thread then enters a filter of its kind ([`enter`]). Where nothing was
//! raised, as in a backend of others that uses this library, `enter` does nothing.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

use clap::{Args, ValueEnum};
use host_io::sandbox::calls::Calls;
use host_io::sandbox::files::{Enforced, Files, FilesError};
use host_io::sandbox::filter::{self, Filter, FilterError};
use host_io::sandbox::{privileges, violation};
use thiserror::Error;

pub mod calls;

/// What the kit reads after that: how busy the processors are, and how many there are.
const READABLE: [&str; 3] = [
    "/proc/pressure/cpu",
    "/proc/loadavg",
    "/sys/devices/system/cpu/online",
];

static FILTERS: OnceLock<Filters> = OnceLock::new();

/// The option that all programs have.
#[derive(Debug, Clone, Copy, Args)]
pub struct SandboxArgs {
    /// Restrict files, system calls and privileges to what is needed
    #[arg(long, value_enum, value_name = "on|off", default_value_t)]
    sandbox: Switch,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Switch {
    #[default]
    On,
    Off,
}

/// A program, and the calls that its device makes, in the session's thread and in those of its
/// queues.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name, for its last line.
    pub name: &'static str,
    /// Besides those of every thread.
    pub device: &'static [&'static Calls],
}

/// The kinds of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thread {
    /// It serves the frontend: the main thread, and those that wait for it.
    Session,
    /// It serves queues.
    Queue,
    /// It waits for a disk, for a queue.
    Disk,
    /// It looks for the peer at the other end of a socket.
    Peer,
}

#[derive(Debug)]
struct Filters {
    session: Filter,
    queue: Filter,
    disk: Filter,
    peer: Filter,
}

/// Why there are no walls. The host's doing.
#[derive(Debug, Error)]
pub enum SandboxError {
    /// The privileges.
    #[error("privileges cannot be given up; --sandbox off runs with them")]
    Privileges(#[source] io::Error),
    /// The files.
    #[error("the sandbox cannot be built; --sandbox off runs without")]
    Files(#[from] FilesError),
    /// The filters.
    #[error("the sandbox cannot be built; --sandbox off runs without")]
    Filter(#[from] FilterError),
    /// The handler of SIGSYS.
    #[error("a forbidden system call could not be reported; --sandbox off runs without")]
    Report(#[source] io::Error),
}

impl SandboxArgs {
    /// Gives up what `program` does not need, but for `files`. To be called by the main thread when
    /// everything is open that the user has named, and before it starts others.
    pub fn raise(self, program: Program, files: Files) -> Result<(), SandboxError> {
        if self.sandbox == Switch::Off {
            tracing::warn!(
                "--sandbox off: a guest that takes this program over has all the rights of its user"
            );
            return Ok(());
        }
        privileges::give_up().map_err(SandboxError::Privileges)?;
        let files = READABLE
            .iter()
            .fold(files, |files, path| files.readable(Path::new(path)));
        match files.restrict()? {
            Enforced::Fully => (),
            Enforced::InPart => {
                tracing::debug!("this kernel's Landlock is older: it restricts files in part");
            }
            Enforced::Not => tracing::warn!(
                "this kernel has no Landlock, or has it off (lsm= on its command line): the \
                 sandbox leaves this program the files that its user can read"
            ),
        }
        if let Err(error) = filter::probe() {
            tracing::warn!(%error, "this host has no seccomp filters: all system calls are allowed");
            return Ok(());
        }
        violation::report_as(program.name).map_err(SandboxError::Report)?;
        let filters = Filters::of(program)?;
        // Only the first call counts.
        let _ = FILTERS.set(filters);
        Ok(())
    }
}

impl Filters {
    fn of(program: Program) -> Result<Self, FilterError> {
        let session = [&calls::SESSION, &calls::OLDER_SESSION];
        let device = program.device.iter().copied();
        let session: Vec<_> = device.chain(session).collect();
        Ok(Filters {
            session: Filter::allowing(&session)?,
            queue: Filter::allowing(program.device)?,
            disk: Filter::allowing(&[&calls::DISK])?,
            peer: Filter::allowing(&[&calls::PEER])?,
        })
    }
}

/// The calling thread is of that kind from here on. If that cannot be, the process ends: with a
/// wall missing it does not serve anybody.
pub fn enter(thread: Thread) {
    let Some(filters) = FILTERS.get() else {
        return;
    };
    let filter = match thread {
        Thread::Session => &filters.session,
        Thread::Queue => &filters.queue,
        Thread::Disk => &filters.disk,
        Thread::Peer => &filters.peer,
    };
    if let Err(error) = filter.apply() {
        let error: &dyn std::error::Error = &error;
        tracing::error!(
            error,
            "the sandbox cannot be entered; --sandbox off runs without"
        );
        std::process::exit(1);
    }
}
