//! The host's end of a console: source of its input and sink of its output.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use host_io::escape::{Escape, HELP};
use host_io::last_resort::restore_at_ending_signals;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr,
};
use thiserror::Error;

use crate::listener::{ListenError, Listener};
use crate::log;
use crate::outbox::Outbox;
use crate::peer::{Meet, Peer};
use crate::shutdown::{ShutdownHandle, signal_fd};
use crate::stdio::{create, nonblocking};

/// How long a reader may take for a piece of output, bit by bit. A driver waits for it, and
/// so does a frontend that wants the queue to stop.
const SLOW: Duration = Duration::from_secs(2);

/// Where a console goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The terminal, or whatever standard input and output are.
    Stdio,
    /// A new pseudo-terminal, whose name is printed.
    Pty,
    /// Output to a file, created or truncated.
    File(PathBuf),
    /// A Unix socket on which one client at a time is served.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "stdio" => Ok(Target::Stdio),
            None if text == "pty" => Ok(Target::Pty),
            Some(("file", path)) if !path.is_empty() => Ok(Target::File(path.into())),
            Some(("unix", path)) if !path.is_empty() => Ok(Target::Unix(path.into())),
            _ => Err("use stdio, pty, file=PATH or unix=PATH".into()),
        }
    }
}

/// A target that cannot be opened. The user's doing, or the host's.
#[derive(Debug, Error)]
pub enum TerminalError {
    /// Standard input or output.
    #[error("standard input and output cannot be used as a console")]
    Stdio(#[source] io::Error),
    /// No pseudo-terminal.
    #[error("a pseudo-terminal cannot be opened for the console")]
    Pty(#[source] io::Error),
    /// The file.
    #[error("console output cannot be written to {path}")]
    File {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The socket's path.
    #[error("no console clients can be served")]
    Listen(#[from] ListenError),
    /// The socket's thread.
    #[error("no console clients can be served")]
    Peer(#[source] io::Error),
}

/// The result of a read.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// For the guest; at least one.
    Bytes(Vec<u8>),
    /// Not now.
    Nothing,
}

/// An open target.
pub struct Terminal {
    lines: Lines,
    outbox: Mutex<Outbox>,
}

enum Lines {
    Files {
        input: Option<File>,
        output: File,
        /// The other side of a pseudo-terminal, held so that clients may come and go.
        _held: Option<OwnedFd>,
        keyboard: Option<Keyboard>,
    },
    Client(Peer),
}

/// What a target is made of, before there is a thread for it.
pub struct Opened(Ends);

enum Ends {
    Lines(Lines),
    Listener(Listener),
}

impl Opened {
    /// Opens `target`. `quit` is for `Ctrl-A x` on a terminal. To be called before any thread is
    /// started, because of SIGWINCH.
    pub fn open(target: &Target, quit: ShutdownHandle) -> Result<Self, TerminalError> {
        let lines = match target {
            Target::Stdio => stdio(quit).map_err(TerminalError::Stdio)?,
            Target::Pty => pty().map_err(TerminalError::Pty)?,
            Target::File(path) => Lines::Files {
                input: None,
                output: create(path).map_err(|source| TerminalError::File {
                    path: path.clone(),
                    source,
                })?,
                _held: None,
                keyboard: None,
            },
            Target::Unix(path) => return Ok(Opened(Ends::Listener(Listener::bind(path)?))),
        };
        Ok(Opened(Ends::Lines(lines)))
    }
}

impl Terminal {
    /// Opens `target` and starts it, with nothing in between ([`Opened::open`]).
    pub fn open(target: &Target, quit: ShutdownHandle) -> Result<Self, TerminalError> {
        Terminal::start(Opened::open(target, quit)?)
    }

    /// A socket gets a thread, which waits for clients.
    pub fn start(opened: Opened) -> Result<Self, TerminalError> {
        let lines = match opened.0 {
            Ends::Lines(lines) => lines,
            Ends::Listener(listener) => {
                let peer = Peer::start("console", Meet::Listen(listener));
                Lines::Client(peer.map_err(TerminalError::Peer)?)
            }
        };
        Ok(Terminal {
            lines,
            outbox: Mutex::new(Outbox::with_limit(SLOW)),
        })
    }

    /// Becomes readable when [`Terminal::read`] has something.
    pub fn input_fd(&self) -> Option<RawFd> {
        match &self.lines {
            Lines::Files { input, .. } => input.as_ref().map(AsRawFd::as_raw_fd),
            Lines::Client(peer) => Some(peer.ready_fd()),
        }
    }

    /// Takes up to `room` bytes, which must not be 0.
    pub fn read(&self, room: usize) -> io::Result<Input> {
        let mut bytes = vec![0; room];
        match &self.lines {
            Lines::Files { input: None, .. } => Ok(Input::Nothing),
            Lines::Files {
                input: Some(file),
                keyboard,
                ..
            } => {
                let Some(n) = some_bytes((&*file).read(&mut bytes))? else {
                    return Ok(Input::Nothing);
                };
                bytes.truncate(n);
                let typed = match keyboard {
                    Some(keyboard) => keyboard.filter(&bytes),
                    None => bytes,
                };
                Ok(Input::from(typed))
            }
            Lines::Client(peer) => {
                let Some(stream) = peer.current() else {
                    return Ok(Input::Nothing);
                };
                match (&*stream).read(&mut bytes) {
                    Ok(n @ 1..) => {
                        bytes.truncate(n);
                        return Ok(Input::Bytes(bytes));
                    }
                    Err(e) if is_transient(&e) => (),
                    Ok(0) | Err(_) => self.lose(peer, &stream),
                }
                Ok(Input::Nothing)
            }
        }
    }

    /// Writes; `false` if nobody takes it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<bool> {
        match &self.lines {
            Lines::Files { output, .. } => self.outbox().send(output.as_fd(), bytes),
            Lines::Client(peer) => {
                // Without a client there is nobody to miss it.
                let Some(stream) = peer.current() else {
                    return Ok(true);
                };
                let sent = self.outbox().send(stream.as_fd(), bytes);
                if sent.is_err() {
                    self.lose(peer, &stream);
                }
                Ok(sent.unwrap_or(true))
            }
        }
    }

    /// Columns and rows, of a terminal that has them.
    pub fn size(&self) -> Option<(u16, u16)> {
        let Lines::Files { output, .. } = &self.lines else {
            return None;
        };
        let size = tcgetwinsize(output).ok()?;
        Some((size.ws_col, size.ws_row))
    }

    /// Becomes readable when the size may be another.
    pub fn size_fd(&self) -> Option<RawFd> {
        match &self.lines {
            Lines::Files { keyboard, .. } => keyboard.as_ref().map(|k| k.resized.as_raw_fd()),
            Lines::Client(_) => None,
        }
    }

    /// Clears that event.
    pub fn size_changed(&self) -> bool {
        if let Lines::Files {
            keyboard: Some(keyboard),
            ..
        } = &self.lines
        {
            // One `struct signalfd_siginfo`; SIGWINCH does not queue.
            let mut info = [0; 128];
            let _ = rustix::io::read(&keyboard.resized, &mut info);
        }
        true
    }

    fn lose(&self, peer: &Peer, stream: &std::sync::Arc<std::os::unix::net::UnixStream>) {
        peer.lost(stream);
        self.outbox().clear();
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Lines::Files { output, .. } = &self.lines {
            // The reader has had time enough, and there is nobody else to tell.
            let _ = self.outbox().finish(output.as_fd());
        }
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.is_empty() {
            Input::Nothing
        } else {
            Input::Bytes(bytes)
        }
    }
}

/// A keyboard with a user at it: raw mode, put back at the end.
struct Keyboard {
    escape: Mutex<Escape>,
    quit: ShutdownHandle,
    saved: Termios,
    resized: OwnedFd,
}

impl Keyboard {
    fn take() -> io::Result<(Termios, OwnedFd)> {
        let stdin = io::stdin();
        let saved = tcgetattr(&stdin)?;
        let mut raw = saved.clone();
        raw.make_raw();
        // The log goes to the same terminal and ends its lines in a newline only.
        raw.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
        restore_at_ending_signals(&saved)?;
        tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok((saved, signal_fd(&[libc::SIGWINCH])?))
    }

    fn filter(&self, bytes: &[u8]) -> Vec<u8> {
        let mut escape = self.escape.lock().unwrap_or_else(|e| e.into_inner());
        let typed = escape.filter(bytes);
        if typed.asks_for_help {
            log::say(HELP);
        }
        if typed.quits {
            self.quit.shutdown();
        }
        typed.pass
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.saved);
    }
}

fn stdio(quit: ShutdownHandle) -> io::Result<Lines> {
    let stdin = io::stdin();
    let keyboard = if isatty(&stdin) {
        let (saved, resized) = Keyboard::take()?;
        Some(Keyboard {
            escape: Mutex::default(),
            quit,
            saved,
            resized,
        })
    } else {
        None
    };
    Ok(Lines::Files {
        input: Some(nonblocking(stdin.as_fd(), OFlags::RDONLY)?),
        output: nonblocking(io::stdout().as_fd(), OFlags::WRONLY)?,
        _held: None,
        keyboard,
    })
}

fn pty() -> io::Result<Lines> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let held = open_raw(&name)?;
    let flags = rustix::fs::fcntl_getfl(&master)?;
    rustix::fs::fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
    tracing::info!(pty = %Path::new(&*name.to_string_lossy()).display(), "the console is there");
    let master = File::from(master);
    Ok(Lines::Files {
        input: Some(master.try_clone()?),
        output: master,
        _held: Some(held),
        keyboard: None,
    })
}

fn open_raw(name: &CStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name, flags, Mode::empty())?;
    let mut termios = tcgetattr(&slave)?;
    termios.make_raw();
    tcsetattr(&slave, OptionalActions::Now, &termios)?;
    Ok(slave)
}

/// The length read; `None` for nothing now, or nothing ever again.
fn some_bytes(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Ok(None),
        Ok(n) => Ok(Some(n)),
        Err(e) if is_transient(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
#[path = "terminal_test.rs"]
mod tests;
