//! Messages of the program to its user: log lines, and reports whatever the level.
//!
//! Sending a message never fails and never waits for a reader: a vCPU may do it.

pub mod filter;
mod json;
mod sink;

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use json::JsonLines;
use sink::Sink;

/// How long the end of the program waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of a long text, so much is said at once: what waits to be written has an end.
const PIECE: usize = 128 << 10;

/// Says one line on standard error, as `eprintln!` does, but never panics.
#[macro_export]
macro_rules! say {
    ($($arg:tt)+) => { $crate::log::say(format_args!($($arg)+)) };
}

/// The function behind [`say!`].
pub fn say(line: fmt::Arguments<'_>) {
    stderr(format!("{line}\n").as_bytes());
}

/// Says a text of any length as it is, so that it can be copied, and waits for its reader.
pub fn say_at_length(text: &str) {
    for piece in text.as_bytes().chunks(PIECE) {
        stderr(piece);
        flush();
    }
}

/// What to log, and where.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In place of RUST_LOG.
    pub filter: Option<String>,
    /// In place of standard error.
    pub file: Option<PathBuf>,
    pub format: Format,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Filter(#[from] filter::Error),
    #[error("cannot log to {}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Starts logging. To be called once.
pub fn init(options: &Options) -> Result<(), Error> {
    let filter = filter::start(options.filter.as_deref())?;
    LOST_NOTE.get_or_init(|| match options.format {
        Format::Text => lost_as_text,
        Format::Json => json::lost,
    });
    let has_colours = match &options.file {
        Some(path) => {
            let sink = open(path).map_err(|source| Error::File {
                path: path.clone(),
                source,
            })?;
            FILE.get_or_init(|| sink);
            false
        }
        None => io::stderr().is_terminal() && wants_colours(),
    };
    let lines = layer().with_writer(|| Lines).log_internal_errors(false);
    match options.format {
        Format::Text => {
            let lines = lines.with_ansi(has_colours);
            registry().with(filter).with(lines).init();
        }
        Format::Json => {
            let lines = lines.event_format(JsonLines);
            registry().with(filter).with(lines).init();
        }
    }
    Ok(())
}

/// By no-color.org.
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Waits until all messages are written, or nobody reads them.
pub fn flush() {
    let stderr = STDERR.get().and_then(Option::as_ref);
    for sink in stderr.into_iter().chain(FILE.get()) {
        sink.flush(PATIENCE);
    }
}

/// Messages so far that nobody has read in time.
pub fn lost() -> u64 {
    let stderr = STDERR.get().and_then(Option::as_ref);
    let sinks = stderr.into_iter().chain(FILE.get());
    sinks.map(Sink::lost_in_all).sum()
}

/// What stands where so many messages are missing.
static LOST_NOTE: OnceLock<fn(u64) -> String> = OnceLock::new();

fn lost_note(lost: u64) -> String {
    LOST_NOTE.get().map_or(lost_as_text as _, |note| *note)(lost)
}

fn lost_as_text(lost: u64) -> String {
    format!("outboard: {lost} messages were lost here: nobody read them\n")
}

/// Standard error, once something was said. `None` where it has no thread.
static STDERR: OnceLock<Option<Sink>> = OnceLock::new();

/// The log file, if there is one.
static FILE: OnceLock<Sink> = OnceLock::new();

fn stderr(message: &[u8]) {
    match STDERR.get_or_init(|| start().ok()) {
        Some(sink) => sink.send(message),
        // The process is out of some resource, and about to end because of that.
        None => drop(io::stderr().write_all(message)),
    }
}

fn start() -> io::Result<Sink> {
    // Not std's, which holds a lock while it writes.
    let stream = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    Sink::start("log", Patient(stream.into()), lost_note)
}

/// Appends: the file may have the messages of an earlier machine.
fn open(path: &Path) -> io::Result<Sink> {
    let mut options = File::options();
    // A FIFO without a reader is an error then, and does not wait for one.
    options.custom_flags(OFlags::NONBLOCK.bits() as i32);
    let file = options.append(true).create(true).open(path)?;
    Sink::start("log file", Patient(file), lost_note)
}

/// Waits for room where the descriptor is nonblocking; others may have made it so who
/// share standard error.
struct Patient(File);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut fds = [PollFd::new(&self.0, PollFlags::OUT)];
                    poll(&mut fds, None)?;
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A formatted event comes as one piece.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match FILE.get() {
            Some(sink) => sink.send(line),
            None => stderr(line),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
