//! The record of requests in flight, kept where it outlives this process.
//!
//! The frontend holds a piece of shared memory for the backend ([`create`]) and gives it to the
//! next one when this one dies ([`Region::map`]). Per ring it says which chains were taken and not
//! yet used, in which order, and how far the used ring had been accounted for. A [`Tracker`]
//! writes it, so that SIGKILL between any two instructions loses no request and completes none
//! twice; [`Tracker::recover`] reads it.
//!
//! This works because of the order of the stores. The process may die between any two of them,
//! but the earlier ones stay and no later one follows: no other order than the compiler's
//! matters, which is why all of them are releases. For one chain:
//!
//! ```text
//! take       counter, inflight = 1
//! (execute)
//! completing next, last_batch_head
//! (used ring entry, used ring index)        the driver has it from here on
//! completed  inflight = 0, used_idx
//! ```
//!
//! Between the last two lines the record still says "in flight" of a chain that the driver has
//! back; `used_idx` then differs from the used ring's index, and `last_batch_head` names it.
//!
//! vhost-user document, "Inflight I/O tracking". The regions of the queues follow each other at
//! multiples of 64 bytes as in libvhost-user and DPDK. Those of packed queues are in [`packed`].
//! The state that the driver has set in the device may follow them ([`state`]).

mod layout;
pub mod packed;
mod region;
pub mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64};

pub use region::{InflightError, Region, Shape, create};

use layout::{ENTRY_INFLIGHT, HEADER_VERSION, SPLIT, VERSION};

/// Where the fields of `struct QueueRegionSplit` are, in bytes.
const HEADER_DESC_NUM: usize = 10;
const HEADER_LAST_BATCH_HEAD: usize = 12;
const HEADER_USED_IDX: usize = 14;

/// Where the fields of `struct DescStateSplit` are, in bytes.
const ENTRY_NEXT: usize = 6;
const ENTRY_COUNTER: usize = 8;

/// One ring's part of the record, in use by this backend.
#[derive(Debug)]
pub struct Tracker {
    region: Arc<Region>,
    /// Where the ring's part begins.
    start: usize,
    /// Entries of the ring.
    size: u16,
    /// Orders the chains as they were taken.
    counter: u64,
    /// Chains that the backend before this one had taken and not used, oldest first.
    left: VecDeque<u16>,
    /// How many of them this backend has resumed.
    resumed: usize,
}

impl Tracker {
    /// Takes over the record of ring `index`, which has `size` entries and stands at the used
    /// index `used`. Also returns the available index to resume at; `None` if the record is new
    /// and does not have it.
    ///
    /// A chain that was taken is either in the used ring or in flight, and chains are taken in
    /// the available ring's order: their sum is where that order was left.
    pub fn recover(
        region: &Arc<Region>,
        index: usize,
        size: u16,
        used: u16,
    ) -> Result<(Self, Option<u16>), InflightError> {
        let Shape {
            queues, size: room, ..
        } = region.shape;
        if index >= usize::from(queues) || size > room {
            return Err(InflightError::Room { size, queues, room });
        }
        let mut tracker = Tracker {
            region: Arc::clone(region),
            start: region.shape.stride() * index,
            size,
            counter: 0,
            left: VecDeque::new(),
            resumed: 0,
        };
        let version = tracker.header(HEADER_VERSION)?;
        if version == 0 {
            tracker.initialise(room, used)?;
            return Ok((tracker, None));
        }
        let entries = tracker.header(HEADER_DESC_NUM)?;
        if version != VERSION || entries != room {
            return Err(InflightError::Unknown {
                version,
                entries,
                room,
            });
        }
        tracker.finish_batch(used)?;
        tracker.collect()?;
        let next_avail = used.wrapping_add(tracker.left.len() as u16);
        Ok((tracker, Some(next_avail)))
    }

    /// Makes the record one of this ring. The version comes last: until then it is a new one.
    fn initialise(&self, room: u16, used: u16) -> Result<(), InflightError> {
        for head in 0..room {
            self.set_in_flight(head, 0)?;
        }
        self.set_header(HEADER_DESC_NUM, room)?;
        self.set_header(HEADER_LAST_BATCH_HEAD, 0)?;
        self.set_header(HEADER_USED_IDX, used)?;
        self.set_header(HEADER_VERSION, VERSION)
    }

    /// Strikes out chains that the driver has got back although the record calls them in
    /// flight. To be killed here does no harm: the same is done again.
    fn finish_batch(&self, used: u16) -> Result<(), InflightError> {
        let recorded = self.header(HEADER_USED_IDX)?;
        let count = used.wrapping_sub(recorded);
        if count > self.size {
            return Err(InflightError::Foreign { recorded, used });
        }
        let mut head = self.header(HEADER_LAST_BATCH_HEAD)?;
        for _ in 0..count {
            if head >= self.size {
                return Err(InflightError::Foreign { recorded, used });
            }
            self.set_in_flight(head, 0)?;
            head = self
                .region
                .load::<AtomicU16>(self.entry(head, ENTRY_NEXT))?;
        }
        self.set_header(HEADER_USED_IDX, used)
    }

    /// Finds the chains in flight, in the order in which they were taken.
    fn collect(&mut self) -> Result<(), InflightError> {
        let mut found = Vec::new();
        for head in 0..self.size {
            if self
                .region
                .load::<AtomicU8>(self.entry(head, ENTRY_INFLIGHT))?
                == 1
            {
                let counter = self
                    .region
                    .load::<AtomicU64>(self.entry(head, ENTRY_COUNTER))?;
                found.push((counter, head));
            }
        }
        found.sort_unstable();
        self.counter = found.last().map_or(0, |(last, _)| last.wrapping_add(1));
        self.left = found.into_iter().map(|(_, head)| head).collect();
        Ok(())
    }

    /// Resumes the oldest chain that is left from before.
    pub fn take_left(&mut self) -> Option<u16> {
        let head = self.left.get(self.resumed).copied()?;
        self.resumed += 1;
        Some(head)
    }

    /// Undoes that, if it is how the chain at `head` was taken last.
    pub fn put_left_back(&mut self, head: u16) -> bool {
        let last = self.resumed.checked_sub(1);
        let is_it = last.is_some_and(|last| self.left.get(last) == Some(&head));
        self.resumed -= usize::from(is_it);
        is_it
    }

    /// How many chains are left from before.
    pub fn left_count(&self) -> u16 {
        self.left.len() as u16
    }

    /// The chain at `head` has come from the available ring. Heads that are not in the ring are
    /// ignored here and below; the used ring will refuse them.
    pub fn take(&mut self, head: u16) -> Result<(), InflightError> {
        if head >= self.size {
            return Ok(());
        }
        self.region
            .store::<AtomicU64>(self.entry(head, ENTRY_COUNTER), self.counter)?;
        self.counter = self.counter.wrapping_add(1);
        self.set_in_flight(head, 1)
    }

    /// The chain at `head` goes back to where it came from, not executed.
    pub fn put_back(&self, head: u16) -> Result<(), InflightError> {
        if head >= self.size {
            return Ok(());
        }
        self.set_in_flight(head, 0)
    }

    /// The chain at `head` is about to be put into the used ring.
    pub fn completing(&self, head: u16) -> Result<(), InflightError> {
        if head >= self.size {
            return Ok(());
        }
        let previous = self.header(HEADER_LAST_BATCH_HEAD)?;
        self.region
            .store::<AtomicU16>(self.entry(head, ENTRY_NEXT), previous)?;
        self.set_header(HEADER_LAST_BATCH_HEAD, head)
    }

    /// The chain at `head` is in the used ring; [`Tracker::set_used`] follows.
    pub fn completed(&mut self, head: u16) -> Result<(), InflightError> {
        if head >= self.size {
            return Ok(());
        }
        self.set_in_flight(head, 0)?;
        let mut resumed = self.left.iter().take(self.resumed);
        if let Some(at) = resumed.position(|left| *left == head) {
            self.left.remove(at);
            self.resumed -= 1;
        }
        Ok(())
    }

    /// The used ring stands at `used`, and all that is in it has been completed.
    pub fn set_used(&self, used: u16) -> Result<(), InflightError> {
        self.set_header(HEADER_USED_IDX, used)
    }

    fn entry(&self, head: u16, field: usize) -> usize {
        self.start + SPLIT.header + SPLIT.entry * usize::from(head) + field
    }

    fn set_in_flight(&self, head: u16, value: u8) -> Result<(), InflightError> {
        self.region
            .store::<AtomicU8>(self.entry(head, ENTRY_INFLIGHT), value)
    }

    fn header(&self, field: usize) -> Result<u16, InflightError> {
        self.region.load::<AtomicU16>(self.start + field)
    }

    fn set_header(&self, field: usize, value: u16) -> Result<(), InflightError> {
        self.region.store::<AtomicU16>(self.start + field, value)
    }
}

#[cfg(test)]
#[path = "inflight_test.rs"]
mod tests;

#[cfg(test)]
#[path = "inflight_step_test.rs"]
mod step_tests;
