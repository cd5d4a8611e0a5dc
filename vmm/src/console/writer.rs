//! Writes the guest's output to the console, on the event loop, without ever blocking
//! it.
//!
//! A reader that is slow holds the guest up, as a slow line does. One that takes nothing
//! for a while counts as asleep: then the guest runs on, and output that finds no room
//! is lost, until the reader has caught up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::outbox::{CAPACITY, Outbox, Reader};

/// How long bytes are gathered, which guests send one by one.
const GATHER: Duration = Duration::from_millis(2);

/// How long a reader may take nothing. A guest may wait so long with interrupts off.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long the end of the machine is put off for a reader that still reads.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// Most bytes written at once, and how often in a row before others have their turn.
const CHUNK: usize = 16 << 10;
const TURNS: usize = 4;

/// The least time between two messages about lost output.
const QUIET: Duration = Duration::from_secs(10);

pub struct Writer {
    outbox: Outbox,
    /// Who reads, for messages.
    name: String,
    /// Taken from the outbox, and not yet written.
    chunk: Vec<u8>,
    state: State,
    reader: Reader,
    /// Not yet told.
    lost: u64,
    told: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The outbox is empty, or says when it no longer is.
    Idle,
    /// There is something to write, from then on.
    Gathering(Instant),
    /// The reader has taken nothing since then.
    Blocked(Instant),
}

impl Writer {
    pub fn new(outbox: Outbox, name: String, reader: Reader) -> Self {
        let mut writer = Self {
            outbox,
            name,
            chunk: Vec::new(),
            state: State::Idle,
            reader: Reader::Awake,
            lost: 0,
            told: None,
        };
        writer.set_reader(reader);
        writer
    }

    /// Readable when [`Writer::gather`] is to be called.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.outbox.as_fd()
    }

    /// The guest has sent something.
    pub fn gather(&mut self, now: Instant) {
        self.outbox.acknowledge();
        if self.state == State::Idle {
            self.state = State::Gathering(now + GATHER);
        }
    }

    /// Whether [`Writer::write`] is to be called when there is room again.
    pub fn is_blocked(&self) -> bool {
        matches!(self.state, State::Blocked(_))
    }

    /// When [`Writer::write`] is to be called at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Gathering(until) => Some(until),
            State::Blocked(since) if self.reader == Reader::Awake => Some(since + PATIENCE),
            State::Idle | State::Blocked(_) => None,
        }
    }

    /// Writes the output that is due. Returns whether the serial port has to check its line
    /// again.
    ///
    /// # Errors
    /// The output is lost.
    pub fn write(&mut self, stream: BorrowedFd<'_>, now: Instant) -> io::Result<bool> {
        match self.state {
            State::Idle => return Ok(false),
            State::Gathering(until) if now < until => return Ok(false),
            State::Gathering(_) | State::Blocked(_) => {}
        }
        let taken = self.write_chunks(stream, now)?;
        Ok(self.judge_reader(taken, now) || taken)
    }

    /// Whether the reader took something.
    fn write_chunks(&mut self, stream: BorrowedFd<'_>, now: Instant) -> io::Result<bool> {
        let mut taken = false;
        for _ in 0..TURNS {
            if self.chunk.is_empty() {
                self.chunk = self.outbox.take(CHUNK);
            }
            if self.chunk.is_empty() {
                self.state = State::Idle;
                return Ok(taken);
            }
            match rustix::io::write(stream, &self.chunk) {
                Ok(count) => {
                    self.chunk.drain(..count);
                    self.state = State::Gathering(now);
                    taken = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !self.is_blocked() {
                        self.state = State::Blocked(now);
                    }
                    return Ok(taken);
                }
                Err(error) => {
                    self.lost += self.chunk.len() as u64;
                    self.chunk.clear();
                    self.state = State::Gathering(now + GATHER);
                    return Err(error.into());
                }
            }
        }
        Ok(taken)
    }

    /// Whether the reader has fallen asleep, or woken up.
    fn judge_reader(&mut self, taken: bool, now: Instant) -> bool {
        match (self.reader, self.state) {
            (Reader::Awake, State::Blocked(since)) if now >= since + PATIENCE => {
                self.set_reader(Reader::Asleep);
                self.tell(now, |writer| {
                    tracing::warn!(
                        "nobody reads {}: output of the guest is lost when {} KiB wait there",
                        writer.name,
                        CAPACITY >> 10
                    );
                });
                true
            }
            (Reader::Asleep, _) if taken && self.outbox.is_roomy() => {
                self.set_reader(Reader::Awake);
                self.lost += self.outbox.take_lost();
                if self.lost > 0 {
                    self.tell(now, Self::tell_lost);
                }
                true
            }
            _ => false,
        }
    }

    fn set_reader(&mut self, reader: Reader) {
        self.reader = reader;
        self.outbox.set_reader(reader);
    }

    /// Prints a message, unless one was printed a moment ago.
    fn tell(&mut self, now: Instant, say: impl FnOnce(&mut Self)) {
        if self.told.is_none_or(|told| now >= told + QUIET) {
            self.told = Some(now);
            say(self);
        }
    }

    fn tell_lost(&mut self) {
        let lost = std::mem::take(&mut self.lost);
        tracing::warn!(
            "{lost} bytes of the guest's output were lost: {} did not take them in time",
            self.name
        );
    }

    /// Another reader, or none: the output for the one before is forgotten.
    pub fn restart(&mut self, reader: Reader) {
        self.set_reader(Reader::Absent);
        self.outbox.take_lost();
        self.chunk.clear();
        self.lost = 0;
        self.state = State::Idle;
        self.set_reader(reader);
    }

    /// Writes all there is, as long as the reader takes it.
    pub fn flush(&mut self, stream: BorrowedFd<'_>) {
        let end = Instant::now() + LAST_PATIENCE;
        let mut now = Instant::now();
        self.state = match self.state {
            State::Blocked(since) => State::Blocked(since),
            State::Idle | State::Gathering(_) => State::Gathering(now),
        };
        while now < end && self.write(stream, now).is_ok() {
            match self.state {
                State::Idle => break,
                State::Blocked(_) if self.reader == Reader::Asleep => break,
                State::Blocked(since) => {
                    let until = (since + PATIENCE).min(end);
                    wait(stream, until.saturating_duration_since(now));
                }
                State::Gathering(_) => {}
            }
            now = Instant::now();
        }
    }

    /// The same, and counts the rest as lost. To be called at the end.
    pub fn finish(&mut self, stream: BorrowedFd<'_>) {
        self.flush(stream);
        self.lost += self.chunk.len() as u64 + self.outbox.take_all() + self.outbox.take_lost();
        self.chunk.clear();
        if self.lost > 0 {
            self.tell_lost();
        }
    }
}

/// Waits for room in `stream`.
fn wait(stream: BorrowedFd<'_>, time: Duration) {
    let mut fds = [PollFd::from_borrowed_fd(stream, PollFlags::OUT)];
    // A signal or an error only makes the caller look earlier.
    let _ = poll(&mut fds, Timespec::try_from(time).ok().as_ref());
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod tests;
