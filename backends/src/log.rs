//! Log lines on standard error. Whether anybody reads them is no matter to the device.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, OnceLock};

use rustix::fs::OFlags;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::outbox::Outbox;
use crate::stdio::nonblocking;

static STDERR: OnceLock<Option<Mutex<Stderr>>> = OnceLock::new();

/// Standard error, and how many messages it did not take.
struct Stderr {
    stream: File,
    outbox: Outbox,
    lost: u64,
}

/// Sends log lines to stderr: warnings and notes by default, more or less by `RUST_LOG`.
pub fn init() {
    let lines = layer()
        .with_writer(|| Lines)
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal() && wants_colours())
        .with_target(false);
    let filter =
        from_environment().unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    registry().with(lines).with(filter).init();
    // A sandbox could not open it later.
    drop(stderr());
}

/// Levels by target. Directives that are not understood are ignored.
fn from_environment() -> Option<Targets> {
    std::env::var("RUST_LOG").ok()?.parse().ok()
}

/// By no-color.org.
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a line whatever the level.
pub(crate) fn say(text: &str) {
    if let Some(mut stderr) = stderr() {
        stderr.send(format!("{text}\n").as_bytes());
    }
}

/// The same for the last line: waits a moment for a slow reader.
pub(crate) fn say_last(text: &str) {
    say(text);
    if let Some(mut stderr) = stderr() {
        stderr.finish();
    }
}

fn stderr() -> Option<MutexGuard<'static, Stderr>> {
    let open = || {
        let stream = nonblocking(io::stderr().as_fd(), OFlags::WRONLY).ok()?;
        Some(Mutex::new(Stderr::new(stream)))
    };
    let stderr = STDERR.get_or_init(open).as_ref()?;
    Some(stderr.lock().unwrap_or_else(|e| e.into_inner()))
}

impl Stderr {
    fn new(stream: File) -> Self {
        Stderr {
            stream,
            outbox: Outbox::default(),
            lost: 0,
        }
    }

    fn send(&mut self, message: &[u8]) {
        if self.lost > 0 {
            let note = format!("{} messages were lost here: nobody read them\n", self.lost);
            if self.takes(note.as_bytes()) {
                self.lost = 0;
            }
        }
        if !self.takes(message) {
            self.lost += 1;
        }
    }

    fn takes(&mut self, message: &[u8]) -> bool {
        let sent = self.outbox.send(self.stream.as_fd(), message);
        sent.unwrap_or(false)
    }

    fn finish(&mut self) {
        // There is nowhere to report an error.
        let _ = self.outbox.finish(self.stream.as_fd());
    }
}

/// A formatted event comes as one piece.
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(mut stderr) = stderr() {
            stderr.send(line);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn what_a_reader_has_missed_it_hears_of_where_it_is_missing() {
        let (reader, writer) = io::pipe().unwrap();
        let stream = nonblocking(writer.as_fd(), OFlags::WRONLY).unwrap();
        let mut stderr = Stderr::new(stream);
        let mut sent = 0;
        while stderr.lost < 3 {
            stderr.send(format!("line {sent}\n").as_bytes());
            sent += 1;
        }
        let mut lines = BufReader::new(reader).lines().map(Result::unwrap);
        for n in 0..sent - 3 {
            assert_eq!(lines.next().unwrap(), format!("line {n}"));
            // As soon as there is room.
            if n == sent / 2 {
                stderr.send(b"heard again\n");
            }
        }
        assert!(lines.next().unwrap().starts_with("3 messages were lost"));
        assert_eq!(lines.next().unwrap(), "heard again");
    }

    #[test]
    fn a_stream_that_cannot_be_written_is_no_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut stderr = Stderr::new(File::from(std::os::fd::OwnedFd::from(writer)));
        stderr.send(b"to nobody\n");
        stderr.send(b"to nobody\n");
        stderr.finish();
        assert_eq!(stderr.lost, 2);
    }
}
