//! A backend's output, in this program's log.

use std::io::{self, BufRead, BufReader, PipeReader, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Level;

/// Longest piece of a line that is logged at once, in bytes.
const MAX_LINE: u64 = 4096;

/// How long the last output may take to arrive when the process is gone. One
/// that left its group may hold the pipe for ever.
const LAST_LINE_DEADLINE: Duration = Duration::from_millis(500);

/// A process's standard output and error.
pub struct Output {
    last_line: Arc<Mutex<Option<String>>>,
    /// Closed when nobody can print any more.
    ended: Receiver<()>,
}

impl Output {
    /// Logs the output from `pipe` under the name of device `id`.
    pub fn log(id: &str, pipe: PipeReader) -> io::Result<Self> {
        let last_line = Arc::new(Mutex::new(None));
        let (guard, ended) = mpsc::channel();
        let (id, line) = (id.to_owned(), last_line.clone());
        thread::Builder::new()
            .name(format!("log of {id}"))
            .spawn(move || {
                copy(&id, pipe, &line);
                drop::<mpsc::Sender<()>>(guard);
            })?;
        Ok(Self { last_line, ended })
    }

    /// The last line that was printed. To be called when the process has ended.
    pub fn last_line(&self) -> Option<String> {
        let waited = self.ended.recv_timeout(LAST_LINE_DEADLINE);
        if waited == Err(RecvTimeoutError::Timeout) {
            tracing::debug!("somebody else holds a backend's standard output");
        }
        self.last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

fn copy(id: &str, pipe: PipeReader, last_line: &Mutex<Option<String>>) {
    let mut pipe = BufReader::new(pipe);
    let mut bytes = Vec::new();
    while matches!(
        pipe.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes),
        Ok(1..)
    ) {
        let line = printable(&bytes);
        bytes.clear();
        if line.is_empty() {
            continue;
        }
        log(id, &line);
        *last_line.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
    }
}

/// At the line's own level, if it begins with one as log lines do, with or without the
/// time. The time is left out: this program's log has it.
fn log(id: &str, line: &str) {
    let (level, text) = level(line);
    match level {
        Level::ERROR => tracing::error!(target: "backend", "{id}: {text}"),
        Level::WARN => tracing::warn!(target: "backend", "{id}: {text}"),
        Level::INFO => tracing::info!(target: "backend", "{id}: {text}"),
        Level::DEBUG => tracing::debug!(target: "backend", "{id}: {text}"),
        Level::TRACE => tracing::trace!(target: "backend", "{id}: {text}"),
    }
}

/// The level of a line, and the rest of it. A line without a level is information.
fn level(line: &str) -> (Level, &str) {
    // As env_logger has it: [TIME LEVEL target] text
    let in_brackets = line.strip_prefix('[');
    let head = in_brackets.unwrap_or(line);
    let rest = match head.split_once(' ') {
        Some((first, rest)) if is_time(first) => rest.trim_start(),
        _ => head,
    };
    let end = rest.find(|c: char| !c.is_ascii_alphabetic());
    let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
    let level = match word {
        "ERROR" | "FATAL" => Level::ERROR,
        "WARN" | "WARNING" => Level::WARN,
        "INFO" => Level::INFO,
        "DEBUG" => Level::DEBUG,
        "TRACE" => Level::TRACE,
        _ if in_brackets.is_some() => return (Level::INFO, line),
        _ => return (Level::INFO, rest),
    };
    let text = match behind.split_once(']') {
        Some((_, text)) if in_brackets.is_some() => text,
        _ => behind.trim_start_matches(':'),
    };
    (level, text.trim_start())
}

/// Whether the word begins as RFC 3339 has it: 2026-11-30T09:15:00.
fn is_time(word: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let fits = |(form, byte): (&u8, u8)| match form {
        b'0' => byte.is_ascii_digit(),
        form => *form == byte,
    };
    word.len() >= FORM.len() && FORM.iter().zip(word.bytes()).all(fits)
}

/// The text without control characters that a terminal would act on.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let plain = |c: char| match c {
        '\t' => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.trim_end().chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_line_is_known_when_all_has_been_read() {
        let (reader, mut writer) = io::pipe().unwrap();
        let output = Output::log("dev0", reader).unwrap();
        writer.write_all(b"one\ntwo\x1b[31m\n\n").unwrap();
        drop(writer);
        assert_eq!(output.last_line().unwrap(), "two\u{fffd}[31m");
    }

    #[test]
    fn lines_have_the_level_that_they_say_and_one_time() {
        for (line, expected, text) in [
            (
                "2026-11-30T09:15:00.123456Z  WARN the ring cannot be processed",
                Level::WARN,
                "the ring cannot be processed",
            ),
            (
                "[2026-11-30T09:15:00Z ERROR virtiofsd] Waiting for daemon failed",
                Level::ERROR,
                "Waiting for daemon failed",
            ),
            ("[INFO] ready", Level::INFO, "ready"),
            ("ERROR: no such file", Level::ERROR, "no such file"),
            ("DEBUG", Level::DEBUG, ""),
            ("2026-11-30T09:15:00Z up", Level::INFO, "up"),
            (
                "Failed to start daemon",
                Level::INFO,
                "Failed to start daemon",
            ),
            ("[x] WARN", Level::INFO, "[x] WARN"),
            ("WARNED", Level::INFO, "WARNED"),
            ("", Level::INFO, ""),
        ] {
            assert_eq!(level(line), (expected, text), "{line}");
        }
    }

    #[test]
    fn lines_without_end_do_not_grow() {
        let (reader, mut writer) = io::pipe().unwrap();
        let output = Output::log("dev0", reader).unwrap();
        writer.write_all(&[b'x'; 10_000]).unwrap();
        drop(writer);
        assert_eq!(output.last_line().unwrap().len(), 10_000 % 4096);
    }

    #[test]
    fn a_pipe_that_somebody_holds_is_not_waited_for() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::log("dev0", reader).unwrap();
        assert_eq!(output.last_line(), None);
        drop(writer);
    }
}
