//! The guest's first serial port as the command's terminal.

use std::fs::OpenOptions;

use guest_init::job::Window;
use rustix::process::{ioctl_tiocsctty, setsid};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{
    LocalModes, OptionalActions, OutputModes, tcgetattr, tcsetattr, tcsetwinsize,
};

use crate::pty::winsize;

const PORT: &str = "/dev/ttyS0";

/// Makes the port standard input, output and error, and the terminal of this session, so that
/// Ctrl-C reaches the command.
pub fn take(window: Option<Window>) -> anyhow::Result<()> {
    let port = OpenOptions::new().read(true).write(true).open(PORT)?;
    setsid()?;
    ioctl_tiocsctty(&port)?;
    match window {
        Some(window) => tcsetwinsize(&port, winsize(window))?,
        None => {
            let mut modes = tcgetattr(&port)?;
            modes.output_modes.remove(OutputModes::OPOST);
            modes.local_modes.remove(LocalModes::ECHO);
            tcsetattr(&port, OptionalActions::Now, &modes)?;
        }
    }
    dup2_stdin(&port)?;
    dup2_stdout(&port)?;
    dup2_stderr(&port)?;
    Ok(())
}
