//! A split virtqueue (virtio 1.4, section 2.7) from the device's side, for as long as a worker
//! stays with it.
//!
//! The three parts of the ring are looked up in guest memory once, and the device's position is
//! kept here meanwhile. The driver's available index is read again only when everything up to the
//! last one has been taken.

use std::io;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

use crate::chain::longest;
use crate::look_again::look_again;
use crate::page_log::{GuestRam, GuestSlice};
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

/// A ring in guest memory.
#[derive(Debug)]
pub struct SplitRing<'m> {
    memory: &'m GuestRam,
    descriptors: GuestSlice<'m>,
    driver: GuestSlice<'m>,
    device: GuestSlice<'m>,
    size: u16,
    event_idx: bool,
    place: Place,
    /// The available index as it was read last.
    seen: u16,
    /// The used index when the driver last heard of it, or could have.
    notified: u16,
}

impl<'m> SplitRing<'m> {
    /// The ring that `queue` describes, at the device's position there.
    pub fn new(memory: &'m GuestRam, queue: &Queue) -> io::Result<Self> {
        let size = usize::from(queue.size());
        let part = |at, len| contiguous(memory, GuestAddress(at), len);
        let place = Place {
            available: queue.next_avail(),
            used: queue.next_used(),
        };
        Ok(SplitRing {
            memory,
            descriptors: part(queue.desc_table(), DESCRIPTOR * size)?,
            // Each ends with the two bytes of EVENT_IDX.
            driver: part(queue.avail_ring(), ELEMENTS + AVAILABLE * size + 2)?,
            device: part(queue.used_ring(), ELEMENTS + USED * size + 2)?,
            size: queue.size(),
            event_idx: queue.event_idx_enabled(),
            place,
            seen: place.available,
            notified: place.used,
        })
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
        let head = load16(&self.driver, ELEMENTS + AVAILABLE * slot, Ordering::Relaxed)?;
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

    /// The descriptors of the chain at `head`.
    pub fn walk(&self, head: u16) -> Walk<'m> {
        Walk::new(self.memory, Table::of(self.descriptors, self.size), head)
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
            let written = self.device.write_obj(element.to_le(), at);
            written.map_err(io::Error::other)?;
            self.place.used = self.place.used.wrapping_add(1);
        }
        Ok(())
    }

    /// Lets the driver see the used elements that were written.
    pub fn publish(&self) -> io::Result<()> {
        store16(&self.device, INDEX, self.place.used, Ordering::Release)
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
            store16(&self.device, event, self.place.available, Ordering::Relaxed)?;
        } else {
            self.set_flags(0)?;
        }
        let is_exhausted = look_again(|| self.nothing_is_available())?;
        if !is_exhausted {
            self.disable_notification()?;
        }
        Ok(is_exhausted)
    }

    /// Whether nothing is available by the driver's index of the moment. What an index tells of
    /// can be read behind it.
    fn nothing_is_available(&mut self) -> io::Result<bool> {
        let index = load16(&self.driver, INDEX, Ordering::Acquire)?;
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
        let wish = look_again(|| load16(&self.driver, wish, Ordering::Relaxed))?;
        Ok(match self.event_idx {
            true => has_passed(wish, old, new),
            false => u32::from(wish) & VRING_AVAIL_F_NO_INTERRUPT == 0,
        })
    }

    fn set_flags(&self, flags: u16) -> io::Result<()> {
        store16(&self.device, FLAGS, flags, Ordering::Relaxed)
    }
}

/// Whether an index that goes from `old` to `new` passes `event` (section 2.7.10): the element at
/// `event` is the one that the driver waits for.
fn has_passed(event: u16, old: u16, new: u16) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Memory that has to be in one piece, as a part of a ring is.
fn contiguous<'m>(
    memory: &'m GuestRam,
    at: GuestAddress,
    len: usize,
) -> io::Result<GuestSlice<'m>> {
    let access = Permissions::ReadWrite;
    let mut slices = GuestMemory::get_slices(memory, at, len, access).map_err(io::Error::other)?;
    match slices.next() {
        Some(Ok(slice)) if slice.len() == len => Ok(slice),
        Some(Err(error)) => Err(io::Error::other(error)),
        _ => Err(io::Error::other(format!(
            "the {len} bytes at {:#x} are not in one piece of guest memory",
            at.0
        ))),
    }
}

fn load16(part: &GuestSlice<'_>, at: usize, order: Ordering) -> io::Result<u16> {
    let value = part.load::<u16>(at, order).map_err(io::Error::other)?;
    Ok(u16::from_le(value))
}

fn store16(part: &GuestSlice<'_>, at: usize, value: u16, order: Ordering) -> io::Result<()> {
    let stored = part.store(value.to_le(), at, order);
    stored.map_err(io::Error::other)
}

#[cfg(test)]
#[path = "split_test.rs"]
mod tests;
