//! A packed virtqueue (virtio 1.3, section 2.8) from the device's side.
//!
//! Driver and device share one ring of descriptors. A bit pair in each says whose it is, against
//! a wrap counter that flips whenever a side passes the ring's end. Only a side itself knows its
//! position: a device that is killed leaves it behind only in the record of requests in flight
//! ([`crate::inflight::packed`]).

mod descriptor;
mod fill;
mod position;

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;

use thiserror::Error;
use virtio_bindings::virtio_ring::{
    VRING_PACKED_EVENT_F_WRAP_CTR, VRING_PACKED_EVENT_FLAG_DESC, VRING_PACKED_EVENT_FLAG_DISABLE,
    VRING_PACKED_EVENT_FLAG_ENABLE,
};
use vm_memory::{Address, Bytes, GuestAddress, GuestMemory};

pub use descriptor::Descriptor;
use descriptor::{FLAGS, ID, LEN, NEXT, SIZE, WRITE};
use fill::fill;
pub use position::{OWNER, Position};

use crate::area::{Area, Areas};
use crate::chain::{Chain, ChainError, longest};
use crate::inflight::InflightError;
use crate::inflight::packed::{Recovered, Tracker};
use crate::look_again::look_again;
use crate::page_log::GuestRam;
use crate::ram_area::{RamArea, Span};

/// Size of an event suppression structure in bytes, and where its flags are (section 2.8.14).
pub const EVENTS: u64 = 4;
const EVENT: usize = 0;
const EVENT_FLAGS: usize = 2;

/// A ring that cannot be run. The frontend is at fault.
#[derive(Debug, Error)]
#[error("the base {base:#x} is beyond a packed ring of {size} descriptors")]
pub struct BaseError {
    base: u32,
    size: u16,
}

/// Where a packed ring is and how it was negotiated.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// In descriptors.
    pub size: u16,
    pub descriptors: GuestAddress,
    /// The events that the driver wants to hear of.
    pub driver_events: GuestAddress,
    /// The events that the device wants to hear of.
    pub device_events: GuestAddress,
    pub event_idx: bool,
}

/// A chain that was taken and not used yet.
#[derive(Debug, Clone, Copy)]
struct Taken {
    id: u16,
    /// Descriptors that it has in the ring.
    slots: u16,
    /// Its part of the record, if there is one.
    entry: Option<u16>,
    /// Another backend had taken it first.
    was_left: bool,
}

/// A packed ring that runs.
#[derive(Debug)]
pub struct PackedRing {
    layout: Layout,
    /// Where the driver's next descriptor comes.
    available: Position,
    /// Where the next used descriptor goes.
    used: Position,
    /// Descriptors passed by `used` of which the driver may not have heard.
    untold: u16,
    /// Descriptors of the chains in `taken`.
    outstanding: u16,
    /// Chains by handle.
    taken: Vec<Option<Taken>>,
    /// Free handles.
    free: Vec<u16>,
    record: Option<Tracker>,
    /// Entries of the record that another backend had taken and not used, oldest first.
    left: VecDeque<u16>,
    /// Space reused from chain to chain.
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    slots: Vec<Descriptor>,
    done: Vec<Taken>,
    entries: Vec<u16>,
}

impl PackedRing {
    /// The ring at `base`, which is SET_VRING_BASE's.
    pub fn new(layout: Layout, base: u32) -> Result<Self, BaseError> {
        let size = layout.size;
        let available = Position::from_bits(base as u16);
        // Without a record nothing is in flight: both positions are the same, and DPDK's
        // net_virtio_user gives only the driver's.
        let used = match (base >> 16) as u16 {
            0 => available,
            bits => Position::from_bits(bits),
        };
        if available.index >= size || used.index >= size {
            return Err(BaseError { base, size });
        }
        Ok(PackedRing {
            layout,
            available,
            used,
            untold: 0,
            outstanding: 0,
            taken: vec![None; size.into()],
            free: (0..size).rev().collect(),
            record: None,
            left: VecDeque::new(),
            scratch: Scratch::default(),
        })
    }

    /// User-mode Linux gives base 0 for a ring that nobody has used. Really, 0 stands for a
    /// ring that has been used once around: there the driver has written into every
    /// descriptor.
    pub fn begin_if_unused(&mut self, memory: &impl GuestMemory) -> io::Result<()> {
        let is_zero = self.available.bits() == 0 && self.used.bits() == 0;
        if is_zero && self.flags(memory, 0)? & OWNER == 0 {
            self.available = Position::START;
            self.used = Position::START;
        }
        Ok(())
    }

    /// Resumes from a record, whose position takes precedence over the base.
    pub fn resume(&mut self, recovered: Recovered) -> Result<(), InflightError> {
        let Recovered {
            tracker,
            left,
            used,
        } = recovered;
        let slots = left.iter().map(|entry| tracker.slots(*entry));
        let slots = slots.sum::<Result<u16, _>>()?;
        self.used = used;
        self.available = used.advanced(slots, self.layout.size);
        self.outstanding = slots;
        self.left = left.into();
        self.record = Some(tracker);
        Ok(())
    }

    /// Whether there is a record of its requests in flight.
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    /// Where the next used descriptor goes.
    pub fn used(&self) -> Position {
        self.used
    }

    /// The flags of a descriptor of the ring.
    pub fn flags(&self, memory: &impl GuestMemory, index: u16) -> io::Result<u16> {
        let at = place(index) + FLAGS;
        let flags = memory.load(
            self.layout.descriptors.unchecked_add(at as u64),
            Ordering::Acquire,
        );
        flags.map(u16::from_le).map_err(io::Error::other)
    }

    /// The areas of the ring.
    pub fn spans(&self) -> Areas<Span> {
        let Layout {
            size,
            descriptors,
            driver_events,
            device_events,
            ..
        } = self.layout;
        let events = |start| Span {
            start,
            len: EVENTS as usize,
        };
        Areas {
            descriptors: Span {
                start: descriptors,
                len: place(size),
            },
            driver: events(driver_events),
            device: events(device_events),
        }
    }

    /// The ring's position, as GET_VRING_BASE has it. Chains that were taken and not used
    /// count as not taken.
    pub fn base(&self) -> u32 {
        let used = u32::from(self.used.bits());
        used | used << 16
    }

    /// Whether the driver has made a descriptor available at the next place.
    pub fn is_available(&self, areas: &Areas<impl Area>) -> io::Result<bool> {
        let at = place(self.available.index) + FLAGS;
        let flags = areas.descriptors.load(at, Ordering::Acquire)?;
        let room = self.outstanding < self.layout.size;
        Ok(room && flags & OWNER == self.available.available())
    }

    /// Takes the next chain, if there is one: a handle, and whether it could be followed into
    /// `chain`.
    pub fn take(
        &mut self,
        memory: &GuestRam,
        areas: &Areas<RamArea>,
        chain: &mut Chain,
    ) -> io::Result<Option<(u16, Result<(), ChainError>)>> {
        if let Some(entry) = self.left.front().copied() {
            return self.take_left(memory, entry, chain).map(Some);
        }
        let Some(handle) = self.take_slots(areas)? else {
            return Ok(None);
        };
        let longest = longest(self.layout.size);
        let filled = fill(memory, &self.scratch.slots, chain, longest);
        Ok(Some((handle, filled)))
    }

    /// Takes the next chain's descriptors out of the ring, if there is one.
    fn take_slots(&mut self, areas: &Areas<impl Area>) -> io::Result<Option<u16>> {
        if !self.is_available(areas)? {
            return Ok(None);
        }
        let mut slots = std::mem::take(&mut self.scratch.slots);
        slots.clear();
        let mut index = self.available.index;
        // No more than the descriptors that are not in flight, for a driver that never ends a
        // chain.
        for _ in self.outstanding..self.layout.size {
            let descriptor = read(&areas.descriptors, index)?;
            slots.push(descriptor);
            if descriptor.flags & NEXT == 0 {
                break;
            }
            index = (index + 1) % self.layout.size;
        }
        let entry = match &mut self.record {
            Some(record) => Some(record.take(&slots).map_err(io::Error::other)?),
            None => None,
        };
        let count = slots.len() as u16;
        self.available = self.available.advanced(count, self.layout.size);
        self.outstanding += count;
        let handle = self.hold(&slots, entry, false)?;
        self.scratch.slots = slots;
        Ok(Some(handle))
    }

    /// Resumes a chain that another backend had taken.
    fn take_left(
        &mut self,
        memory: &GuestRam,
        entry: u16,
        chain: &mut Chain,
    ) -> io::Result<(u16, Result<(), ChainError>)> {
        let record = self.record.as_ref();
        let record = record.ok_or_else(|| io::Error::other("what is left has no record"))?;
        let slots = record.descriptors(entry).map_err(io::Error::other)?;
        let handle = self.hold(&slots, Some(entry), true)?;
        self.left.pop_front();
        let longest = longest(self.layout.size);
        Ok((handle, fill(memory, &slots, chain, longest)))
    }

    fn hold(
        &mut self,
        slots: &[Descriptor],
        entry: Option<u16>,
        was_left: bool,
    ) -> io::Result<u16> {
        let handle = self.free.pop();
        let handle = handle.ok_or_else(|| io::Error::other("more chains than descriptors"))?;
        // The chain's id is its last descriptor's (section 2.8.6).
        let id = slots.last().map_or(0, |last| last.id);
        self.taken[usize::from(handle)] = Some(Taken {
            id,
            slots: slots.len() as u16,
            entry,
            was_left,
        });
        Ok(handle)
    }

    fn release(&mut self, handle: u16) -> io::Result<Taken> {
        let taken = self.taken.get_mut(usize::from(handle));
        let taken = taken.and_then(Option::take);
        let taken =
            taken.ok_or_else(|| io::Error::other(format!("no chain {handle} was taken")))?;
        self.free.push(handle);
        Ok(taken)
    }

    /// Puts the chain that was taken last back, not executed: it will be the next again.
    pub fn put_back(&mut self, handle: u16) -> io::Result<()> {
        let taken = self.release(handle)?;
        if taken.was_left {
            if let Some(entry) = taken.entry {
                self.left.push_front(entry);
            }
            return Ok(());
        }
        if let (Some(record), Some(entry)) = (&mut self.record, taken.entry) {
            record.put_back(entry).map_err(io::Error::other)?;
        }
        self.outstanding -= taken.slots;
        self.available = self.available.retreated(taken.slots, self.layout.size);
        Ok(())
    }

    /// Gives chains, each with so many bytes written into it, back to the driver, which sees all
    /// of them or none.
    pub fn complete<A: Area>(&mut self, areas: &Areas<A>, chains: &[(u16, u32)]) -> io::Result<()> {
        let ring = &areas.descriptors;
        let first = self.used;
        let mut first_flags = None;
        let mut done = std::mem::take(&mut self.scratch.done);
        let mut entries = std::mem::take(&mut self.scratch.entries);
        done.clear();
        entries.clear();
        for (handle, _) in chains {
            done.push(self.release(*handle)?);
        }
        entries.extend(done.iter().filter_map(|taken| taken.entry));
        let count: u16 = done.iter().map(|taken| taken.slots).sum();
        let after = first.advanced(count, self.layout.size);
        if let Some(record) = &mut self.record {
            record
                .completing(&entries, after)
                .map_err(io::Error::other)?;
        }
        for (taken, (_, len)) in done.iter().zip(chains) {
            let at = place(self.used.index);
            ring.write(at + LEN, len.to_le())?;
            ring.write(at + ID, taken.id.to_le())?;
            let flags = self.used.used() | if *len > 0 { WRITE } else { 0 };
            if first_flags.is_some() {
                ring.store(at + FLAGS, flags, Ordering::Release)?;
            } else {
                // The driver looks at the first one first: it comes last.
                first_flags = Some(flags);
            }
            self.used = self.used.advanced(taken.slots, self.layout.size);
        }
        if let Some(flags) = first_flags {
            ring.store(place(first.index) + FLAGS, flags, Ordering::Release)?;
        }
        self.outstanding -= count;
        self.untold = self.untold.saturating_add(count);
        if let Some(record) = &mut self.record {
            record
                .completed(&entries, after)
                .map_err(io::Error::other)?;
        }
        (self.scratch.done, self.scratch.entries) = (done, entries);
        Ok(())
    }

    /// The driver need not kick.
    pub fn disable_notification(&self, areas: &Areas<impl Area>) -> io::Result<()> {
        set_events(&areas.device, VRING_PACKED_EVENT_FLAG_DISABLE as u16)
    }

    /// Whether the driver has added nothing since the ring was found empty. It kicks when it
    /// adds something from here on.
    pub fn is_exhausted<A: Area>(&self, areas: &Areas<A>) -> io::Result<bool> {
        let events = &areas.device;
        if self.layout.event_idx {
            events.write(EVENT, self.available.bits().to_le())?;
            set_events(events, VRING_PACKED_EVENT_FLAG_DESC as u16)?;
        } else {
            set_events(events, VRING_PACKED_EVENT_FLAG_ENABLE as u16)?;
        }
        if !look_again::<A, _>(|| self.is_available(areas))? {
            return Ok(true);
        }
        self.disable_notification(areas)?;
        Ok(false)
    }

    /// Whether the driver wants to hear of chains used since this was asked last (section
    /// 2.8.10).
    pub fn driver_wants_notification<A: Area>(&mut self, areas: &Areas<A>) -> io::Result<bool> {
        let used = std::mem::take(&mut self.untold);
        let events = &areas.driver;
        let flags = look_again::<A, _>(|| events.load(EVENT_FLAGS, Ordering::Acquire))?;
        match u32::from(flags & 3) {
            VRING_PACKED_EVENT_FLAG_DISABLE => Ok(false),
            VRING_PACKED_EVENT_FLAG_DESC if self.layout.event_idx => {
                let event = events.load(EVENT, Ordering::Acquire)?;
                Ok(self.has_passed(Position::from_bits(event), used))
            }
            _ => Ok(true),
        }
    }

    /// Whether the last `count` used descriptors include the one at `event`.
    fn has_passed(&self, event: Position, count: u16) -> bool {
        let size = self.layout.size;
        let mut index = event.index;
        if event.wrap != self.used.wrap {
            index = index.wrapping_sub(size);
        }
        self.used.index.wrapping_sub(index).wrapping_sub(1) < count
    }
}

const _: () = assert!(VRING_PACKED_EVENT_F_WRAP_CTR == 15);

/// Where a descriptor is in the ring, in bytes.
fn place(index: u16) -> usize {
    SIZE * usize::from(index)
}

fn read(ring: &impl Area, index: u16) -> io::Result<Descriptor> {
    let at = place(index);
    // The flags say whether the rest is the device's: they are read before it.
    let flags = ring.load(at + FLAGS, Ordering::Acquire)?;
    Ok(Descriptor {
        addr: u64::from_le(ring.read(at)?),
        len: u32::from_le(ring.read(at + LEN)?),
        id: u16::from_le(ring.read(at + ID)?),
        flags,
    })
}

fn set_events(events: &impl Area, flags: u16) -> io::Result<()> {
    events.store(EVENT_FLAGS, flags, Ordering::Release)
}

#[cfg(test)]
#[path = "packed_test.rs"]
mod tests;

#[cfg(test)]
#[path = "packed_model_test.rs"]
mod model_tests;
