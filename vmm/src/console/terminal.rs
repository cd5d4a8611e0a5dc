//! Raw mode on the terminal, put back on every way out.

use std::io;
use std::os::fd::AsFd;

use host_io::last_resort::restore_at_ending_signals;
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcsetattr};

/// While it lives, the terminal on standard input is raw.
pub struct RawMode {
    stdin: io::Stdin,
    saved: Termios,
}

impl RawMode {
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        // Our own messages go to the same terminal and end in a newline only.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_at_ending_signals(&saved)?;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Self { stdin, saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.saved);
    }
}

/// Makes a pseudo-terminal pass bytes unchanged.
pub fn make_raw(fd: impl AsFd) -> io::Result<()> {
    let mut termios = tcgetattr(&fd)?;
    termios.make_raw();
    tcsetattr(&fd, OptionalActions::Now, &termios)?;
    Ok(())
}
