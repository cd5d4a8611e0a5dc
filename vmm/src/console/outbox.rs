//! Output of the guest that has yet to be written: a vCPU puts it in, the event
//! loop takes it out.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use devices::serial::Line;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::events::borrow;

/// Most bytes that are kept. Output beyond that is lost, and counted.
pub const CAPACITY: usize = 256 << 10;

/// So many are reserved for output that a guest sends without asking: a FIFO of each
/// vCPU, or the output of a driver that has waited long enough (Linux: 10 ms a
/// byte).
const RESERVE: usize = 4 << 10;

/// The reader of the console.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// A full outbox holds the guest up until there is room again.
    #[default]
    Awake,
    /// It has taken nothing for long: the guest does not wait, and output is lost.
    Asleep,
    /// There is none: nothing is kept.
    Absent,
}

/// The end that is written to by the serial port.
pub struct Output(Arc<Shared>);

/// The event loop's end.
pub struct Outbox(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Readable when something was put into an empty outbox.
    filled: EventFd,
}

#[derive(Default)]
struct State {
    bytes: VecDeque<u8>,
    reader: Reader,
    lost: u64,
    /// The event loop knows that there are bytes.
    is_known: bool,
}

pub fn outbox() -> io::Result<(Output, Outbox)> {
    let shared = Arc::new(Shared {
        state: Mutex::default(),
        filled: EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?,
    });
    Ok((Output(shared.clone()), Outbox(shared)))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        if state.reader == Reader::Absent {
            return Ok(bytes.len());
        }
        let room = CAPACITY - state.bytes.len();
        let taken = bytes.len().min(room);
        state.bytes.extend(&bytes[..taken]);
        state.lost += (bytes.len() - taken) as u64;
        if !state.is_known {
            state.is_known = true;
            // Only a counter at its maximum refuses, and then it is readable.
            let _ = self.0.filled.write(1);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Line for Output {
    fn is_busy(&self) -> bool {
        let state = self.0.lock();
        state.reader == Reader::Awake && state.bytes.len() >= CAPACITY - RESERVE
    }
}

impl Outbox {
    /// Takes up to `most` of the oldest bytes. Without any, [`Outbox::as_fd`] tells
    /// when there are some.
    pub fn take(&mut self, most: usize) -> Vec<u8> {
        let mut state = self.0.lock();
        let count = most.min(state.bytes.len());
        if count == 0 {
            state.is_known = false;
            let _ = self.0.filled.read();
        }
        state.bytes.drain(..count).collect()
    }

    /// Forgets all of them, and says how many there were.
    pub fn take_all(&mut self) -> u64 {
        std::mem::take(&mut self.0.lock().bytes).len() as u64
    }

    /// Clears the event that there are bytes: the caller deals with them.
    pub fn acknowledge(&mut self) {
        let _ = self.0.filled.read();
    }

    /// Whether at least half of it is free.
    pub fn is_roomy(&self) -> bool {
        self.0.lock().bytes.len() <= CAPACITY / 2
    }

    pub fn set_reader(&mut self, reader: Reader) {
        let mut state = self.0.lock();
        state.reader = reader;
        if reader == Reader::Absent {
            state.bytes.clear();
            state.is_known = false;
            let _ = self.0.filled.read();
        }
    }

    /// Bytes that found no room since this was asked last.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.0.lock().lost)
    }
}

impl AsFd for Outbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.0.filled)
    }
}
