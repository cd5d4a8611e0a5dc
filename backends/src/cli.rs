//! The common part of all backends' command lines: socket options, exit status.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use host_io::sandbox::files::Files;
use thiserror::Error;
use vhost_user_backend::VhostUserBackend;
use vm_memory::mmap::NewBitmap;

use crate::daemon::{Daemon, DaemonError};
use crate::listener::{ListenError, Listener};
use crate::log;
use crate::sandbox::{self, Thread};
use crate::shutdown::Shutdown;
use crate::virtio::{PumpBackend, VirtioDevice};

/// Exit status after a host-side failure. (Bad usage is 2, from clap; the end on request is 0.)
pub const HOST_FAILURE: u8 = 1;

/// Where the frontend is met.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct SocketArgs {
    /// Unix socket to listen on; a stale one is replaced, a live one is not
    #[arg(long, value_name = "PATH", alias = "socket-path")]
    socket: Option<PathBuf>,

    /// Inherited file descriptor of a connected Unix socket: serve that one frontend and end
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
    fd: Option<RawFd>,

    /// Inherited file descriptor of a listening Unix socket, such as the first of systemd's socket
    /// units, which is 3: serve one frontend after another
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(i32).range(3..))]
    listen_fd: Option<RawFd>,
}

/// Why there is nowhere to meet a frontend. The user's doing, or the host's.
#[derive(Debug, Error)]
pub enum MeetError {
    /// The path.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The descriptor.
    #[error("--fd {fd} is not a connected Unix stream socket")]
    Fd {
        /// The descriptor's number.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The descriptor that is to listen.
    #[error("--listen-fd {fd} is not a listening Unix stream socket")]
    ListenFd {
        /// The descriptor's number.
        fd: RawFd,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Neither was given.
    #[error("neither a socket path nor a descriptor was given")]
    Nothing,
}

/// A place to meet frontends.
#[derive(Debug)]
pub enum Meeting {
    /// One after another.
    Listener(Listener),
    /// This one only.
    Connected(UnixStream),
}

impl SocketArgs {
    /// Binds the path, or takes over the descriptor. To be called once.
    pub fn open(&self) -> Result<Meeting, MeetError> {
        match (&self.socket, self.fd, self.listen_fd) {
            (Some(path), ..) => Ok(Meeting::Listener(Listener::bind(path)?)),
            (None, Some(fd), _) => {
                let stream = inherited(fd).and_then(connected);
                let stream = stream.map_err(|source| MeetError::Fd { fd, source })?;
                Ok(Meeting::Connected(stream))
            }
            (None, None, Some(fd)) => {
                let listener = inherited(fd).and_then(Listener::from_fd);
                let listener = listener.map_err(|source| MeetError::ListenFd { fd, source })?;
                Ok(Meeting::Listener(listener))
            }
            (None, None, None) => Err(MeetError::Nothing),
        }
    }
}

impl Meeting {
    /// The files that it needs until the end, when a sandbox is raised meanwhile.
    pub fn files(&self) -> Files {
        let path = match self {
            Meeting::Listener(listener) => listener.path(),
            Meeting::Connected(_) => None,
        };
        path.map_or_else(Files::default, |path| Files::default().removable(path))
    }

    /// Serves `device` until asked to end, or until the only frontend has left.
    pub fn serve_device<D: VirtioDevice>(
        self,
        device: D,
        shutdown: Shutdown,
    ) -> Result<(), DaemonError> {
        let backend = Arc::new(PumpBackend::new(device).map_err(DaemonError::Attach)?);
        let mut daemon = Daemon::new(Arc::clone(&backend), shutdown)?;
        backend.attach(&daemon).map_err(DaemonError::Attach)?;
        self.serve(&mut daemon)
    }

    /// Serves until asked to end, or until the only frontend has left.
    pub fn serve<T>(self, daemon: &mut Daemon<T>) -> Result<(), DaemonError>
    where
        T: VhostUserBackend,
        T::Bitmap: NewBitmap,
    {
        sandbox::enter(Thread::Session);
        match self {
            Meeting::Listener(listener) => daemon.serve(&listener),
            Meeting::Connected(stream) => daemon.serve_stream(stream).map(|_| ()),
        }
    }
}

fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer, and a number that is no descriptor is an error.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and the command line hands it over to this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn connected(fd: OwnedFd) -> io::Result<UnixStream> {
    let stream = UnixStream::from(fd);
    stream.peer_addr()?;
    Ok(stream)
}

/// Turns a program's result into its exit status; an error is printed once, with its causes.
pub fn exit(program: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::say_last(&format!("{program}: {error:#}"));
            ExitCode::from(HOST_FAILURE)
        }
    }
}
