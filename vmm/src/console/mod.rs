//! The other end of the guest's serial port.

mod outbox;
mod pty;
mod socket;
mod stdio;
mod target;
pub mod terminal;
mod writer;

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Instant;

use host_io::escape::{Escape, HELP};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

pub use outbox::Output;
use outbox::{Reader, outbox};
use pty::Pty;
use socket::SocketEnd;
use stdio::Stdio;
pub use target::{Error, ParseError, Target};
use terminal::RawMode;
use writer::Writer;

/// The result of reading the console's input.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    Bytes(Vec<u8>),
    /// Nothing for the guest this time.
    Nothing,
    /// `Ctrl-A x`.
    Quit,
}

/// The console, but for the end that is the serial port's; owned by the event loop.
/// Dropping it writes what is left to be written.
pub struct Console {
    source: Source,
    sink: Sink,
    writer: Writer,
    /// The user knows that the sink fails.
    is_failing: bool,
}

/// Where input comes from.
enum Source {
    None,
    /// Keys that a user presses.
    Terminal {
        stdin: Stdio,
        escape: Escape,
        _raw: RawMode,
    },
    Stdin(Stdio),
    Pty(Pty),
    Socket(SocketEnd),
}

/// Where output goes.
enum Sink {
    None,
    Stdout(Stdio),
    File(OwnedFd),
    /// To the source's other direction.
    Source,
}

impl Console {
    /// Opens `target`.
    pub fn open(target: &Target) -> Result<(Self, Output), Error> {
        let (output, outbox) = outbox().map_err(Error::EventFd)?;
        let mut reader = Reader::Awake;
        let (source, sink, name) = match target {
            Target::None => {
                reader = Reader::Absent;
                (Source::None, Sink::None, String::new())
            }
            Target::Stdio => {
                let stdout = Stdio::nonblocking(rustix::stdio::stdout(), OFlags::WRONLY);
                let sink = Sink::Stdout(stdout.map_err(Error::Stdio)?);
                (stdin()?, sink, "standard output".into())
            }
            Target::Pty => {
                let pty = Pty::open().map_err(Error::Pty)?;
                crate::say!("outboard: serial console on {}", pty.name());
                let name = pty.name().to_owned();
                (Source::Pty(pty), Sink::Source, name)
            }
            Target::File(path) => {
                let file = create(path).map_err(|source| Error::File {
                    path: path.clone(),
                    source,
                })?;
                let name = path.display().to_string();
                (Source::None, Sink::File(file), name)
            }
            Target::Unix(path) => {
                reader = Reader::Absent;
                let name = format!("the client on {}", path.display());
                (Source::Socket(SocketEnd::bind(path)?), Sink::Source, name)
            }
        };
        let console = Self {
            source,
            sink,
            writer: Writer::new(outbox, name, reader),
            is_failing: false,
        };
        Ok((console, output))
    }

    /// Readable when [`Console::read`] has something.
    pub fn input(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            Source::None => None,
            Source::Terminal { stdin, .. } | Source::Stdin(stdin) => Some(stdin.as_fd()),
            Source::Pty(pty) => Some(pty.as_fd()),
            Source::Socket(end) => end.client(),
        }
    }

    /// Reads at most `room` bytes. An end of input is remembered.
    pub fn read(&mut self, room: usize) -> Input {
        let Some(input) = self.input() else {
            return Input::Nothing;
        };
        let mut buffer = vec![0; room];
        match rustix::io::read(input, &mut buffer) {
            Ok(len @ 1..) => {
                buffer.truncate(len);
                self.filter(buffer)
            }
            Err(Errno::AGAIN | Errno::INTR) => Input::Nothing,
            Ok(0) | Err(_) => {
                self.end_input();
                Input::Nothing
            }
        }
    }

    fn filter(&mut self, bytes: Vec<u8>) -> Input {
        let Source::Terminal { escape, .. } = &mut self.source else {
            return Input::Bytes(bytes);
        };
        let typed = escape.filter(&bytes);
        if typed.asks_for_help {
            for line in HELP.lines() {
                crate::say!("outboard: {line}");
            }
        }
        match typed.pass {
            _ if typed.quits => Input::Quit,
            bytes if bytes.is_empty() => Input::Nothing,
            bytes => Input::Bytes(bytes),
        }
    }

    fn end_input(&mut self) {
        match &mut self.source {
            Source::Socket(end) => end.disconnect(),
            source => *source = Source::None,
        }
        if sink(&self.sink, &self.source).is_none() {
            self.writer.restart(Reader::Absent);
        }
    }

    /// Readable when [`Console::accept`] has a client.
    pub fn listener(&self) -> Option<BorrowedFd<'_>> {
        match &self.source {
            // While one client is served, the next waits in the listener's queue.
            Source::Socket(end) if end.client().is_none() => Some(end.listener()),
            _ => None,
        }
    }

    /// Takes the next client of a Unix socket.
    pub fn accept(&mut self) {
        if let Source::Socket(end) = &mut self.source
            && end.accept()
        {
            self.writer.restart(Reader::Awake);
        }
    }

    /// Readable when [`Console::gather`] is to be called.
    pub fn output(&self) -> BorrowedFd<'_> {
        self.writer.event()
    }

    /// The guest has sent something, which is written a moment later.
    pub fn gather(&mut self) {
        self.writer.gather(Instant::now());
    }

    /// Where there is room again for [`Console::write`].
    pub fn blocked(&self) -> Option<BorrowedFd<'_>> {
        let is_blocked = self.writer.is_blocked();
        is_blocked.then(|| sink(&self.sink, &self.source)).flatten()
    }

    /// When [`Console::write`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.writer.deadline()
    }

    /// Writes output as far as it is due and there is room. Returns whether the
    /// serial port has to check its line again.
    pub fn write(&mut self) -> bool {
        let Some(stream) = sink(&self.sink, &self.source) else {
            return false;
        };
        match self.writer.write(stream, Instant::now()) {
            Ok(has_changed) => {
                self.is_failing &= !has_changed;
                has_changed
            }
            Err(error) => {
                self.failed(&error);
                true
            }
        }
    }

    /// Reports the error, once.
    fn failed(&mut self, error: &io::Error) {
        // A client that has left is noticed when its input ends.
        let is_client = matches!(self.source, Source::Socket(_));
        if !is_client && !self.is_failing {
            let error: &dyn std::error::Error = error;
            tracing::warn!(error, "the guest's output is lost");
        }
        self.is_failing = true;
    }

    /// Writes all that the guest has sent, as long as somebody reads it.
    pub fn flush(&mut self) {
        if let Some(stream) = sink(&self.sink, &self.source) {
            self.writer.flush(stream);
        }
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(stream) = sink(&self.sink, &self.source) {
            self.writer.finish(stream);
        }
    }
}

/// The current destination of output.
fn sink<'a>(sink: &'a Sink, source: &'a Source) -> Option<BorrowedFd<'a>> {
    match (sink, source) {
        (Sink::Stdout(stdout), _) => Some(stdout.as_fd()),
        (Sink::File(file), _) => Some(file.as_fd()),
        (Sink::Source, Source::Pty(pty)) => Some(pty.as_fd()),
        (Sink::Source, Source::Socket(end)) => end.client(),
        (Sink::None | Sink::Source, _) => None,
    }
}

fn stdin() -> Result<Source, Error> {
    let stdin = rustix::stdio::stdin();
    let raw = rustix::termios::isatty(stdin).then(RawMode::enter);
    let raw = raw.transpose().map_err(Error::Terminal)?;
    let stdin = Stdio::nonblocking(stdin, OFlags::RDONLY).map_err(Error::Stdio)?;
    Ok(match raw {
        Some(raw) => Source::Terminal {
            stdin,
            escape: Escape::default(),
            _raw: raw,
        },
        None => Source::Stdin(stdin),
    })
}

/// Opens a file for output; also a FIFO, whose reader may come later.
fn create(path: &Path) -> io::Result<OwnedFd> {
    let is_fifo = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    // Open for writing alone, it would have to have a reader by now (fifo(7)).
    let access = if is_fifo {
        OFlags::RDWR
    } else {
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC
    };
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_may_get_its_reader_later() {
        use std::io::{Read, Write};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        let (mut console, mut output) = Console::open(&Target::File(path.clone())).unwrap();
        output.write_all(b"early").unwrap();
        console.flush();
        let mut bytes = [0; 5];
        let mut reader = std::fs::File::open(path).unwrap();
        reader.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"early");
    }
}
