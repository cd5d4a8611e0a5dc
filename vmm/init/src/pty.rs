//! A terminal of a command that the host reaches by a stream.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::Receiver;

use guest_init::job::Window;
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::children;

/// The host's end.
pub struct Pty {
    master: File,
}

impl Pty {
    pub fn open(window: Window) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let pty = Self {
            master: File::from(master),
        };
        pty.resize(window)?;
        Ok(pty)
    }

    pub fn resize(&self, window: Window) -> io::Result<()> {
        Ok(tcsetwinsize(&self.master, winsize(window))?)
    }

    /// Another descriptor of this end, to read from.
    pub fn master(&self) -> io::Result<File> {
        self.master.try_clone()
    }

    /// Starts a process in a session of its own, whose terminal this is.
    pub fn spawn(&self, command: &mut Command) -> io::Result<(Child, Receiver<u8>)> {
        let name = ptsname(&self.master, Vec::new())?;
        let name = name.to_string_lossy();
        let slave = OpenOptions::new().read(true).write(true).open(&*name)?;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?);
        command.stderr(slave);
        let take_terminal = || {
            setsid()?;
            Ok(ioctl_tiocsctty(rustix::stdio::stdin())?)
        };
        // SAFETY: between fork and exec, in a process with several threads, this makes two system
        // calls and allocates nothing; standard input is open by then.
        let started = unsafe { command.pre_exec(take_terminal) };
        children::spawn(started)
    }
}

impl Write for Pty {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.master.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// As the kernel takes it.
pub fn winsize(window: Window) -> Winsize {
    Winsize {
        ws_row: window.rows,
        ws_col: window.columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
