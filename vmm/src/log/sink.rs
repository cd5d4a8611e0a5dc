//! A stream with a thread that writes it, so that the sender of a message never
//! waits for the reader, and gets no error when there is none.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written. Messages beyond that are lost, and counted.
const CAPACITY: usize = 256 << 10;

/// Most bytes written at once: a reader that takes so much is alive.
const CHUNK: usize = 4096;

/// The sending end.
pub struct Sink(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is more to write, or more has been written.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queued: Vec<u8>,
    /// Messages that found no room behind what is queued.
    lost: u64,
    /// The same, since the start.
    lost_in_all: u64,
    is_writing: bool,
    chunks_written: u64,
}

impl Sink {
    /// Starts the thread. It ends with the process. `note` says how many messages are
    /// missing where it stands.
    pub fn start(
        name: &str,
        stream: impl Write + Send + 'static,
        note: fn(u64) -> String,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let writer = shared.clone();
        thread::Builder::new()
            .name(name.into())
            .spawn(move || writer.write_to(stream, note))?;
        Ok(Self(shared))
    }

    /// Queues a message, as a whole or not at all.
    pub fn send(&self, message: &[u8]) {
        let mut state = self.0.lock();
        if state.queued.len() + message.len() > CAPACITY {
            state.lost += 1;
            state.lost_in_all += 1;
            return;
        }
        state.queued.extend_from_slice(message);
        self.0.changed.notify_all();
    }

    /// Messages that have been lost.
    pub fn lost_in_all(&self) -> u64 {
        self.0.lock().lost_in_all
    }

    /// Waits until all is written, but not for a reader that takes nothing for as
    /// long as `patience`.
    pub fn flush(&self, patience: Duration) {
        let mut state = self.0.lock();
        while state.is_unwritten() {
            let before = state.chunks_written;
            let waited = self.0.changed.wait_timeout_while(state, patience, |state| {
                state.is_unwritten() && state.chunks_written == before
            });
            let (next, result) = waited.unwrap_or_else(PoisonError::into_inner);
            if result.timed_out() {
                return;
            }
            state = next;
        }
    }
}

impl State {
    fn is_unwritten(&self) -> bool {
        self.is_writing || !self.queued.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut stream: impl Write, note: fn(u64) -> String) {
        loop {
            let bytes = self.take(note);
            for chunk in bytes.chunks(CHUNK) {
                // There is nowhere to report an error.
                let _ = stream.write_all(chunk);
                self.lock().chunks_written += 1;
                self.changed.notify_all();
            }
        }
    }

    /// Waits for something to write.
    fn take(&self, note: fn(u64) -> String) -> Vec<u8> {
        let mut state = self.lock();
        state.is_writing = false;
        self.changed.notify_all();
        let waited = self
            .changed
            .wait_while(state, |state| state.queued.is_empty());
        state = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        let mut bytes = std::mem::take(&mut state.queued);
        let lost = std::mem::take(&mut state.lost);
        if lost > 0 {
            bytes.extend_from_slice(note(lost).as_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn note(lost: u64) -> String {
        format!("{lost} lost\n")
    }

    #[test]
    fn what_is_said_arrives_in_order() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = Sink::start("test", writer, note).unwrap();
        for n in 0..1000 {
            sink.send(format!("line {n}\n").as_bytes());
        }
        sink.flush(PATIENCE);
        let expected: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let mut found = vec![0; expected.len()];
        reader.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8(found).unwrap(), expected);
    }

    #[test]
    fn a_reader_that_sleeps_is_not_waited_for_and_hears_what_it_has_missed() {
        let (reader, mut writer) = io::pipe().unwrap();
        fill(&mut writer);
        let sink = Sink::start("test", writer, note).unwrap();
        sink.send(b"first\n");
        while !sink.0.lock().queued.is_empty() {
            thread::yield_now();
        }
        let sent = 2 * CAPACITY / 100;
        for _ in 0..sent {
            sink.send(&[[b'x'; 99].as_slice(), b"\n"].concat());
        }
        sink.flush(Duration::from_millis(1));
        let mut lines = io::BufRead::lines(io::BufReader::new(reader))
            .map(Result::unwrap)
            .skip_while(String::is_empty);
        assert_eq!(lines.next().unwrap(), "first");
        for _ in 0..CAPACITY / 100 {
            assert!(lines.next().unwrap().starts_with('x'));
        }
        let lost = sent - CAPACITY / 100;
        let note = lines.next().unwrap();
        assert_eq!(note, format!("{lost} lost"));
        assert_eq!(sink.lost_in_all(), lost as u64);
    }

    /// With ends of lines.
    fn fill(pipe: &mut io::PipeWriter) {
        rustix::io::ioctl_fionbio(&*pipe, true).unwrap();
        while pipe.write(&[b'\n'; 4096]).is_ok() {}
        rustix::io::ioctl_fionbio(&*pipe, false).unwrap();
    }

    #[test]
    fn a_stream_that_cannot_be_written_is_no_error() {
        let (_, writer) = io::pipe().unwrap();
        let sink = Sink::start("test", writer, note).unwrap();
        let begun = Instant::now();
        for _ in 0..100 {
            sink.send(b"to nobody\n");
            sink.flush(PATIENCE);
        }
        assert!(begun.elapsed() < PATIENCE, "no longer than it takes");
    }
}
