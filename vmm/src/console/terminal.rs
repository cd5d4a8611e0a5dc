//! Raw mode on the terminal, put back on every way out.

use std::io;
use std::os::fd::AsFd;
use std::sync::Once;

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
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        restore_on_panic(saved.clone());
        Ok(Self { stdin, saved })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.stdin, OptionalActions::Now, &self.saved);
    }
}

/// A panic's message must be readable, and a panic on another thread than the
/// owner's never drops the owner.
fn restore_on_panic(saved: Termios) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &saved);
            earlier(panic);
        }));
    });
}

/// Makes a pseudo-terminal pass bytes unchanged.
pub fn make_raw(fd: impl AsFd) -> io::Result<()> {
    let mut termios = tcgetattr(&fd)?;
    termios.make_raw();
    tcsetattr(&fd, OptionalActions::Now, &termios)?;
    Ok(())
}
