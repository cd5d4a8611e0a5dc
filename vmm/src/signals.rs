//! Signals as readable descriptors.
#![allow(unsafe_code)]

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGXFSZ};
use signal_hook::{flag, low_level::pipe};

pub struct Signals {
    quit: UnixStream,
    status: UnixStream,
    /// Held so that the other end stays open even where no signal has it.
    _on_quit: UnixStream,
}

impl Signals {
    /// Catches SIGINT, SIGTERM and SIGHUP to quit, SIGUSR1 to report. An ignored SIGHUP
    /// stays ignored: nohup sets that on purpose. An ignored SIGINT does not: a shell
    /// sets that for every program in the background.
    pub fn catch() -> io::Result<Self> {
        let (quit, on_quit) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            if signal != SIGHUP || !is_ignored(signal)? {
                pipe::register(signal, on_quit.try_clone()?)?;
            }
        }
        let (status, on_status) = UnixStream::pair()?;
        pipe::register(SIGUSR1, on_status)?;
        for stream in [&quit, &status] {
            stream.set_nonblocking(true)?;
        }
        // A file at its size limit then gives an error instead of a signal that ends the
        // process.
        flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
        Ok(Self {
            quit,
            status,
            _on_quit: on_quit,
        })
    }

    /// Readable when it is time to quit.
    pub fn quit(&self) -> BorrowedFd<'_> {
        self.quit.as_fd()
    }

    /// Readable when a report is asked for.
    pub fn status(&self) -> BorrowedFd<'_> {
        self.status.as_fd()
    }

    /// Clears the event that a report is asked for.
    pub fn acknowledge_status(&self) {
        let mut buffer = [0; 64];
        while matches!((&self.status).read(&mut buffer), Ok(1..)) {}
    }
}

fn is_ignored(signal: libc::c_int) -> io::Result<bool> {
    // SAFETY: an all-zero structure is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: no new action is set, and `action` is valid.
    if unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(action.sa_sigaction == libc::SIG_IGN)
}
