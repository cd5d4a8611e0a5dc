//! What the program says to its user: log lines, and reports whatever the level.
//!
//! Saying something never fails and never waits for a reader: a vCPU may do it.

mod sink;

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use tracing_subscriber::EnvFilter;

use sink::Sink;

/// How long the end of the program waits for a reader that takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says one line on standard error, as `eprintln!` does, but never panics.
#[macro_export]
macro_rules! say {
    ($($arg:tt)+) => { $crate::log::say(format_args!($($arg)+)) };
}

/// What [`say!`] calls.
pub fn say(line: fmt::Arguments<'_>) {
    stderr(format!("{line}\n").as_bytes());
}

/// Starts logging to standard error.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn,backend=info".into());
    tracing_subscriber::fmt()
        .with_writer(|| Lines)
        .log_internal_errors(false)
        .with_env_filter(filter)
        .init();
}

/// Waits until what was said is written, or nobody reads it.
pub fn flush() {
    if let Some(Some(sink)) = STDERR.get() {
        sink.flush(PATIENCE);
    }
}

/// Standard error, once something was said. `None` where it has no thread.
static STDERR: OnceLock<Option<Sink>> = OnceLock::new();

fn stderr(message: &[u8]) {
    match STDERR.get_or_init(|| start().ok()) {
        Some(sink) => sink.send(message),
        // The process is out of something, and about to end of it.
        None => drop(io::stderr().write_all(message)),
    }
}

fn start() -> io::Result<Sink> {
    // Not std's, which holds a lock while it writes.
    let stream = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?);
    Sink::start("log", Patient(stream))
}

/// Waits for room where others who share standard error have made it nonblocking.
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
        stderr(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
