//! What is measured.

use std::path::PathBuf;

/// What a request does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Reads at random places.
    Read,
    /// Reads one place after the other.
    ReadInOrder,
    /// Writes at random places.
    Write,
    /// Reads at random places, the first of them together with a FLUSH of [`DIRTY`] bytes.
    ReadBesideFlush,
}

/// Bytes that are dirty in the page cache when a FLUSH comes.
pub const DIRTY: u64 = 1 << 30;

/// A row of the table.
#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    pub image: PathBuf,
    /// How much of the image is accessed, from its start.
    pub size: u64,
    pub direct: bool,
    pub depth: u64,
    pub work: Work,
    /// Of each request, in bytes.
    pub len: u32,
    /// Each has `depth` requests in flight.
    pub queues: usize,
    /// Beside as many busy processes as there are cores.
    pub is_busy: bool,
}

impl Row {
    /// Places that a request can be at.
    pub fn places(&self) -> u64 {
        self.size / u64::from(self.len)
    }
}

/// The places of one request after the other.
pub struct Places {
    in_order: bool,
    count: u64,
    state: u64,
}

impl Places {
    pub fn of(row: &Row) -> Self {
        Places {
            in_order: row.work == Work::ReadInOrder,
            count: row.places(),
            state: 42,
        }
    }

    /// The number of the next place.
    pub fn next(&mut self) -> u64 {
        if self.in_order {
            self.state += 1;
            return self.state % self.count;
        }
        random(&mut self.state) % self.count
    }
}

/// Marsaglia's xorshift.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
