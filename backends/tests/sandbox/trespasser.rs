//! A backend that is not what it seems: one of its threads makes a system call that the sandbox of
//! the programs forbids.

#![allow(unsafe_code)]

use std::thread;

use anyhow::Context;
use backends::cli::SocketArgs;
use backends::log;
use backends::prelude::*;
use backends::sandbox::{self, Program, SandboxArgs, Thread};
use backends::shutdown::Shutdown;
use clap::{Parser, ValueEnum};

/// Serve a device that breaks out.
#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    socket: SocketArgs,

    #[command(flatten)]
    sandbox: SandboxArgs,

    /// The thread
    #[arg(long, value_enum)]
    thread: Kind,

    /// What it does
    #[arg(long, value_enum)]
    act: Act,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// When the driver has gone.
    Session,
    /// When it gets a request.
    Queue,
    Disk,
    Peer,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Act {
    /// Starts another program.
    Execute,
    /// Makes a file.
    Create,
    /// Goes to the network.
    Network,
    /// Starts a process.
    Fork,
    /// Makes memory executable.
    Code,
    /// Takes the handler of SIGSYS away.
    Handler,
    /// Reads a file of the host, which is an error and not the end.
    Read,
    /// Ends by a mistake of its own, which the sandbox does not hide.
    Panic,
    /// The same, as the standard library and the C library do it.
    Abort,
}

impl Act {
    /// Each is harmless if nothing forbids it.
    fn commit(self) {
        let path = c"/etc/hostname".as_ptr();
        let (zero, null) = (0_u64, std::ptr::null::<u8>());
        // SAFETY: no call but the first reads or writes this process's memory, or changes what is
        // in use. The first reads a string and two lists that are empty.
        let result = unsafe {
            match self {
                Act::Execute => libc::syscall(libc::SYS_execve, c"/bin/true".as_ptr(), null, null),
                Act::Create => {
                    let flags = libc::O_TMPFILE | libc::O_WRONLY;
                    libc::syscall(libc::SYS_openat, -1, c"/tmp".as_ptr(), flags, 0o600)
                }
                Act::Network => libc::syscall(libc::SYS_socket, libc::AF_INET, 1, 0),
                Act::Fork => libc::syscall(libc::SYS_clone, libc::SIGCHLD, null, null, null, zero),
                Act::Code => {
                    let (access, flags) =
                        (libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                    libc::syscall(libc::SYS_mmap, null, 4096, access, flags, -1, zero)
                }
                Act::Handler => libc::syscall(libc::SYS_rt_sigaction, libc::SIGSYS, null, null, 8),
                Act::Read => libc::syscall(libc::SYS_openat, -1, path, libc::O_RDONLY, 0),
                Act::Panic => panic!("on purpose"),
                Act::Abort => std::process::abort(),
            }
        };
        match result {
            0.. => tracing::info!("{self:?} went unnoticed"),
            _ => tracing::info!("{self:?}: {}", std::io::Error::last_os_error()),
        }
    }
}

struct Trespasser {
    thread: Kind,
    act: Act,
}

impl VirtioDevice for Trespasser {
    fn process(&self, _queue: u16, _memory: &GuestRam, _request: &mut Request) -> Outcome {
        if self.thread == Kind::Queue {
            self.act.commit();
        }
        Outcome::Done(0)
    }

    fn reset(&self) {
        if self.thread == Kind::Session {
            self.act.commit();
        }
    }
}

const SANDBOX: Program = Program {
    name: "trespasser",
    device: &[],
};

/// Runs with such a command line.
pub fn run(arguments: &str) -> anyhow::Result<()> {
    let cli = Cli::parse_from(arguments.split(' '));
    log::init();
    let shutdown = Shutdown::on_signals().context("cannot watch for signals")?;
    let meeting = cli.socket.open()?;
    cli.sandbox.raise(SANDBOX, meeting.files())?;
    let (kind, act) = (cli.thread, cli.act);
    let other = match kind {
        Kind::Disk => Some(Thread::Disk),
        Kind::Peer => Some(Thread::Peer),
        Kind::Session | Kind::Queue => None,
    };
    if let Some(other) = other {
        let thread = thread::Builder::new().name(format!("{other:?}"));
        thread.spawn(move || {
            sandbox::enter(other);
            act.commit();
        })?;
    }
    let device = Trespasser { thread: kind, act };
    Ok(meeting.serve_device(device, shutdown)?)
}
