//! The other end of the guest's serial port.

mod escape;
mod socket;
mod terminal;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::str::FromStr;

use escape::{Action, Escape};
use socket::SocketEnd;
use terminal::RawMode;

/// Where the serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The terminal, or whatever standard input and output are.
    #[default]
    Stdio,
    /// Nowhere.
    None,
    /// A new pseudo-terminal, whose name is printed.
    Pty,
    /// Output to a file, created or truncated.
    File(PathBuf),
    /// A Unix socket on which one client at a time is served.
    Unix(PathBuf),
}

/// A `--serial` argument that is none of the forms.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("serial target {0:?} is not known; use stdio, none, pty, file=PATH or unix=PATH")]
pub struct ParseError(String);

impl FromStr for Target {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let unknown = || ParseError(text.to_owned());
        Ok(match text.split_once('=') {
            None => match text {
                "stdio" => Target::Stdio,
                "none" => Target::None,
                "pty" => Target::Pty,
                _ => return Err(unknown()),
            },
            Some((_, "")) => return Err(unknown()),
            Some(("file", path)) => Target::File(path.into()),
            Some(("unix", path)) => Target::Unix(path.into()),
            Some(_) => return Err(unknown()),
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot set up the terminal for the serial console")]
    Terminal(#[source] io::Error),
    #[error("cannot open a pseudo-terminal for the serial console")]
    Pty(#[source] io::Error),
    #[error("cannot write the serial console to {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot listen for the serial console on {}", path.display())]
    Listen {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "cannot listen for the serial console on {}: another process serves it; \
         choose another path or end that process", .0.display()
    )]
    InUse(PathBuf),
}

/// What reading the console's input gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    /// Nothing for the guest this time.
    Nothing,
    /// `Ctrl-A x`.
    Quit,
}

/// The output half, given to the serial port.
pub type Output = Box<dyn Write + Send>;

/// The input half; owned by the event loop.
pub struct Console {
    source: Source,
}

enum Source {
    None,
    Terminal {
        raw: RawMode,
        escape: Escape,
    },
    /// Standard input that is not a terminal, or a pseudo-terminal's master.
    Stream(File),
    Socket(SocketEnd),
}

impl Console {
    /// Opens both halves of `target`.
    pub fn open(target: &Target) -> Result<(Self, Output), Error> {
        let (source, output): (_, Output) = match target {
            Target::None => (Source::None, Box::new(io::sink())),
            Target::Stdio => (stdio()?, Box::new(Unbuffered(io::stdout()))),
            Target::Pty => {
                let (master, output) = pty().map_err(Error::Pty)?;
                (Source::Stream(master), Box::new(output))
            }
            Target::File(path) => {
                let failed = |source| Error::File {
                    path: path.clone(),
                    source,
                };
                (Source::None, Box::new(File::create(path).map_err(failed)?))
            }
            Target::Unix(path) => {
                let (end, output) = SocketEnd::bind(path)?;
                (Source::Socket(end), Box::new(output))
            }
        };
        Ok((Self { source }, output))
    }

    /// Readable when [`Console::read`] has something.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::None => None,
            Source::Terminal { raw, .. } => Some(raw.as_fd()),
            Source::Stream(file) => Some(file.as_fd()),
            Source::Socket(end) => end.input(),
        }
    }

    /// Reads at most `room` bytes. An end of input is remembered.
    pub fn read(&mut self, room: usize) -> Input {
        let mut buffer = vec![0; room];
        let result = match &mut self.source {
            Source::None => return Input::Nothing,
            Source::Terminal { .. } => io::stdin().read(&mut buffer),
            Source::Stream(file) => file.read(&mut buffer),
            Source::Socket(end) => return end.read(buffer),
        };
        match result {
            Ok(len @ 1..) => {
                buffer.truncate(len);
                self.filter(buffer)
            }
            // A pseudo-terminal that nobody has open reads as EIO until somebody does.
            Err(error) if is_transient(&error) => Input::Nothing,
            Ok(0) | Err(_) => {
                self.source = Source::None;
                Input::Nothing
            }
        }
    }

    fn filter(&mut self, bytes: Vec<u8>) -> Input {
        let Source::Terminal { escape, .. } = &mut self.source else {
            return Input::Bytes(bytes);
        };
        match escape.filter(&bytes) {
            Action::Pass(bytes) if bytes.is_empty() => Input::Nothing,
            Action::Pass(bytes) => Input::Bytes(bytes),
            Action::Quit => Input::Quit,
        }
    }

    /// Readable when [`Console::accept`] has a client.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            // While one client is served, the next waits in the listener's queue.
            Source::Socket(end) if end.input().is_none() => Some(end.listener()),
            _ => None,
        }
    }

    /// Takes the next client of a Unix socket.
    pub fn accept(&mut self) {
        if let Source::Socket(end) = &mut self.source {
            end.accept();
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn stdio() -> Result<Source, Error> {
    let stdin = io::stdin();
    if rustix::termios::isatty(&stdin) {
        let raw = RawMode::enter().map_err(Error::Terminal)?;
        return Ok(Source::Terminal {
            raw,
            escape: Escape::default(),
        });
    }
    let copy: OwnedFd = stdin
        .as_fd()
        .try_clone_to_owned()
        .map_err(Error::Terminal)?;
    Ok(Source::Stream(File::from(copy)))
}

/// Opens a pseudo-terminal and prints the name to attach to. The other side is
/// kept open, so that clients may come and go.
fn pty() -> io::Result<(File, PtyOutput)> {
    use rustix::fs::{Mode, OFlags, fcntl_setfl};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let keep = rustix::fs::open(
        &name,
        OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    terminal::make_raw(&keep)?;
    // Without a reader the buffer fills up; the guest must not wait for one.
    fcntl_setfl(&master, OFlags::NONBLOCK)?;
    crate::say!("outboard: serial console on {}", name.to_string_lossy());
    let master = File::from(master);
    let output = PtyOutput {
        master: master.try_clone()?,
        _keep: keep,
    };
    Ok((master, output))
}

/// Writes to the master; drops what nobody reads.
struct PtyOutput {
    master: File,
    _keep: OwnedFd,
}

impl Write for PtyOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.master.write(bytes) {
            Err(error) if is_transient(&error) => Ok(bytes.len()),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output without its line buffer: a console shows every byte.
struct Unbuffered(io::Stdout);

impl Write for Unbuffered {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.0.write(bytes)?;
        self.0.flush()?;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_parse() {
        assert_eq!("stdio".parse(), Ok(Target::Stdio));
        assert_eq!("file=/tmp/a=b".parse(), Ok(Target::File("/tmp/a=b".into())));
        assert_eq!("unix=/run/s".parse(), Ok(Target::Unix("/run/s".into())));
        for bad in ["", "tty", "file", "file=", "unix=", "pty=x"] {
            let error = bad.parse::<Target>().unwrap_err();
            assert!(error.to_string().contains("use stdio, none, pty"), "{bad}");
        }
    }

    #[test]
    fn a_pty_carries_both_directions_and_loses_what_nobody_reads() {
        let (mut master, mut output) = pty().unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
        let mut client = File::options()
            .read(true)
            .write(true)
            .open(name.to_str().unwrap())
            .unwrap();
        output.write_all(b"out").unwrap();
        let mut bytes = [0; 3];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"out");
        client.write_all(b"in\r").unwrap();
        let mut bytes = [0; 3];
        master.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"in\r", "no translation on the way in");
        for _ in 0..1000 {
            output.write_all(&[b'x'; 100]).unwrap();
        }
    }
}
