//! A split virtqueue (virtio 1.4, section 2.7) from the device's side, for as long as a worker
//! stays with it.
//!
//! The device's position is kept here meanwhile. The driver's available index is read again only
//! when everything up to the last one has been taken.

use std::io;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestAddress;

use crate::area::{Area, Areas};
use crate::chain::longest;
use crate::look_again::look_again;
use crate::page_log::GuestRam;
use crate::ram_area::{RamArea, Span};
use crate::walk::{Table, Walk};

/// Where the fields of the available ring and the used ring are (sections 2.7.6 and 2.7.8), in
/// bytes.
const FLAGS: usize = 0;
const INDEX: usize = 2;
const ELEMENTS: usize = 4;
/// Size of an element of either, in bytes.
const AVAILABLE: usize = 2;
const USED: usize = 8;

/// Size of a descriptor (section 2.7.5), in bytes.
const DESCRIPTOR: usize = 16;

/// A ring that cannot be worked with. The driver is at fault.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the available index is {index}, though only {size} chains from {next} on can be available"
)]
pub struct IndexError {
    index: u16,
    next: u16,
    size: u16,
}

impl IndexError {
    /// Whether it is why a ring could not be processed.
    pub fn is_cause_of(error: &io::Error) -> bool {
        error
            .get_ref()
            .is_some_and(|cause| cause.is::<IndexError>())
    }
}

/// The device's position in a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index of the next available chain.
    pub available: u16,
    /// Index of the next used element.
    pub used: u16,
}

/// The areas of the ring that `queue` describes.
pub fn spans(queue: &Queue) -> Areas<Span> {
    let size = usize::from(queue.size());
    let span = |start, len| Span {
        start: GuestAddress(start),
        len,
    };
    Areas {
        descriptors: span(queue.desc_table(), DESCRIPTOR * size),
        // Each ends with the two bytes of EVENT_IDX.
        driver: span(queue.avail_ring(), ELEMENTS + AVAILABLE * size + 2),
        device: span(queue.used_ring(), ELEMENTS + USED * size + 2),
    }
}

/// A ring in its areas.
#[derive(Debug)]
pub struct SplitRing<'a, A = RamArea> {
    areas: &'a Areas<A>,
    size: u16,
    event_idx: bool,
    place: Place,
    /// The available index as it was read last.
    seen: u16,
    /// The used index when the driver last heard of it, or could have.
    notified: u16,
}

impl<'a> SplitRing<'a> {
    /// The descriptors of the chain at `head`, whose tables may be anywhere in `memory`.
    pub fn walk(&self, memory: &'a GuestRam, head: u16) -> Walk<'a> {
        let table = Table::of(self.areas.descriptors.slice(), self.size);
        Walk::new(memory, table, head)
    }
}

impl<'a, A: Area> SplitRing<'a, A> {
    /// The ring that `queue` describes, at the device's position there.
    pub fn new(areas: &'a Areas<A>, queue: &Queue) -> Self {
        let place = Place {
            available: queue.next_avail(),
            used: queue.next_used(),
        };
        SplitRing {
            areas,
            size: queue.size(),
            event_idx: queue.event_idx_enabled(),
            place,
            seen: place.available,
            notified: place.used,
        }
    }

    /// The device's position now.
    pub fn place(&self) -> Place {
        self.place
    }

    /// The head of the next available chain, which is taken.
    pub fn take(&mut self) -> io::Result<Option<u16>> {
        if !self.has_more()? {
            return Ok(None);
        }
        let slot = usize::from(self.place.available % self.size);
        let head = self
            .areas
            .driver
            .load(ELEMENTS + AVAILABLE * slot, Ordering::Relaxed)?;
        self.place.available = self.place.available.wrapping_add(1);
        Ok(Some(head))
    }

    /// Whether another chain is available.
    pub fn has_more(&mut self) -> io::Result<bool> {
        Ok(self.place.available != self.seen || !self.nothing_is_available()?)
    }

    /// The chain that was taken last is available again.
    pub fn put_back(&mut self) {
        self.place.available = self.place.available.wrapping_sub(1);
    }

    /// Most descriptors of a chain.
    pub fn longest_chain(&self) -> usize {
        longest(self.size)
    }

    /// Whether the ring has a chain of that number.
    pub fn has(&self, head: u16) -> bool {
        head < self.size
    }

    /// Writes used elements, which the driver does not see before [`publish`](Self::publish).
    pub fn write_used(&mut self, chains: &[(u16, u32)]) -> io::Result<()> {
        for (head, len) in chains {
            let slot = usize::from(self.place.used % self.size);
            let element = u64::from(u32::from(*head)) | u64::from(*len) << 32;
            let at = ELEMENTS + USED * slot;
            // An element is aligned to 4 bytes only.
            self.areas.device.write(at, element.to_le())?;
            self.place.used = self.place.used.wrapping_add(1);
        }
        Ok(())
    }

    /// Lets the driver see the used elements that were written.
    pub fn publish(&self) -> io::Result<()> {
        let index = self.place.used;
        self.areas.device.store(INDEX, index, Ordering::Release)
    }

    /// The driver need not kick. With EVENT_IDX it does not, as long as nobody asks it to.
    pub fn disable_notification(&self) -> io::Result<()> {
        match self.event_idx {
            true => Ok(()),
            false => self.set_flags(VRING_USED_F_NO_NOTIFY as u16),
        }
    }

    /// Whether the driver has added nothing since the ring was found empty. It kicks when it
    /// adds something from here on.
    pub fn is_exhausted(&mut self) -> io::Result<bool> {
        if self.event_idx {
            let event = ELEMENTS + USED * usize::from(self.size);
            let index = self.place.available;
            self.areas.device.store(event, index, Ordering::Relaxed)?;
        } else {
            self.set_flags(0)?;
        }
        let is_exhausted = look_again::<A, _>(|| self.nothing_is_available())?;
        if !is_exhausted {
            self.disable_notification()?;
        }
        Ok(is_exhausted)
    }

    /// Whether nothing is available by the driver's index of the moment. What an index tells of
    /// can be read behind it.
    fn nothing_is_available(&mut self) -> io::Result<bool> {
        let index = self.areas.driver.load(INDEX, Ordering::Acquire)?;
        let (next, size) = (self.place.available, self.size);
        if index.wrapping_sub(next) > size {
            return Err(io::Error::other(IndexError { index, next, size }));
        }
        self.seen = index;
        Ok(index == next)
    }

    /// Whether the driver wants to hear of chains used since this was asked last.
    pub fn driver_wants_notification(&mut self) -> io::Result<bool> {
        let (old, new) = (self.notified, self.place.used);
        self.notified = new;
        let wish = match self.event_idx {
            true => ELEMENTS + AVAILABLE * usize::from(self.size),
            false => FLAGS,
        };
        let wish = look_again::<A, _>(|| self.areas.driver.load(wish, Ordering::Relaxed))?;
        Ok(match self.event_idx {
            true => has_passed(wish, old, new),
            false => u32::from(wish) & VRING_AVAIL_F_NO_INTERRUPT == 0,
        })
    }

    fn set_flags(&self, flags: u16) -> io::Result<()> {
        self.areas.device.store(FLAGS, flags, Ordering::Relaxed)
    }
}

/// Whether an index that goes from `old` to `new` passes `event` (section 2.7.10): the element at
/// `event` is the one that the driver waits for.
fn has_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
#[path = "split_test.rs"]
mod tests;

#[cfg(test)]
#[path = "split_model_test.rs"]
mod model_tests;
