//! A running ring as the pump sees it: chains are taken, and completed or put back.
//!
//! Each of the three is recorded, if the frontend keeps a record of requests in flight
//! ([`crate::inflight`]); chains that the record says were left by another backend come first.

use std::io;
use std::sync::MutexGuard;
use std::sync::atomic::{Ordering, fence};

use vhost_user_backend::VringT;
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::chain::{Chain, ChainError};
use crate::inflight::{Progress, Tracker};
use crate::page_log::GuestRam;
use crate::vring::Vring;
use crate::walk::Walk;

/// A ring, its memory, and its part of the record.
pub struct Ring<'a> {
    vring: &'a Vring,
    memory: &'a GuestRam,
    progress: MutexGuard<'a, Progress>,
    /// The used index of a split ring when the driver last heard of it, or could have.
    told: u16,
}

impl<'a> Ring<'a> {
    /// `vring` runs for as long as this exists.
    pub fn new(vring: &'a Vring, memory: &'a GuestRam, progress: MutexGuard<'a, Progress>) -> Self {
        Ring {
            vring,
            memory,
            progress,
            told: vring.get_ref().get_queue().next_used(),
        }
    }

    /// The memory that the ring is in.
    pub fn memory(&self) -> &'a GuestRam {
        self.memory
    }

    /// Takes the next chain, if there is one: its head (of a packed ring, a number that stands for
    /// it), and whether it could be followed into `chain`.
    pub fn take(&mut self, chain: &mut Chain) -> io::Result<Option<(u16, Result<(), ChainError>)>> {
        let tracker = match &mut *self.progress {
            Progress::Packed(ring) => return ring.take(self.memory, chain),
            Progress::Split(tracker) => tracker,
        };
        if let Some(head) = tracker.as_mut().and_then(Tracker::take_left) {
            return Ok(Some((head, chain.refill(self.walk(head)))));
        }
        let next = self
            .vring
            .get_mut()
            .get_queue_mut()
            .iter(self.memory)
            .map_err(io::Error::other)?
            .next();
        let Some(descriptors) = next else {
            return Ok(None);
        };
        let head = descriptors.head_index();
        if let Some(tracker) = tracker {
            tracker.take(head).map_err(io::Error::other)?;
        }
        Ok(Some((head, chain.refill(descriptors))))
    }

    /// Puts the chain that was taken last back, not executed: it will be the next again.
    pub fn put_back(&mut self, head: u16) -> io::Result<()> {
        let tracker = match &mut *self.progress {
            Progress::Packed(ring) => return ring.put_back(head),
            Progress::Split(tracker) => tracker,
        };
        if let Some(tracker) = tracker {
            if tracker.put_left_back(head) {
                return Ok(());
            }
            tracker.put_back(head).map_err(io::Error::other)?;
        }
        self.vring
            .get_mut()
            .get_queue_mut()
            .go_to_previous_position();
        Ok(())
    }

    /// Gives chains back to the driver, each with so many bytes written into it: the driver sees
    /// all of them or none.
    pub fn complete(&mut self, chains: &[(u16, u32)]) -> io::Result<()> {
        let tracker = match &mut *self.progress {
            Progress::Packed(ring) => return ring.complete(self.memory, chains),
            Progress::Split(tracker) => tracker,
        };
        let Some(((last, len), before)) = chains.split_last() else {
            return Ok(());
        };
        if let Some(tracker) = tracker {
            for (head, _) in chains {
                tracker.completing(*head).map_err(io::Error::other)?;
            }
        }
        write_used(self.vring, self.memory, before)?;
        // Its element, and the index that makes all of them visible.
        self.vring.add_used(*last, *len).map_err(io::Error::other)?;
        if let Some(tracker) = tracker {
            let used = self.vring.get_ref().get_queue().next_used();
            for (head, _) in chains {
                tracker.completed(*head).map_err(io::Error::other)?;
            }
            tracker.set_used(used).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether the driver has added something. Cheaper than [`take`](Self::take), and no promise
    /// that it will kick.
    pub fn has_more(&self) -> io::Result<bool> {
        if let Progress::Packed(ring) = &*self.progress {
            return ring.is_available(self.memory);
        }
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        let index: Result<u16, _> = self
            .memory
            .load(GuestAddress(queue.avail_ring() + 2), Ordering::Acquire);
        let index = index.map(u16::from_le).map_err(io::Error::other)?;
        Ok(index != queue.next_avail())
    }

    /// The driver need not kick.
    pub fn disable_notification(&self) -> io::Result<()> {
        match &*self.progress {
            Progress::Packed(ring) => ring.disable_notification(self.memory),
            Progress::Split(_) => self.vring.disable_notification().map_err(io::Error::other),
        }
    }

    /// Whether the driver has added nothing since the ring was found empty. It kicks when it
    /// adds something from here on.
    pub fn is_exhausted(&self) -> io::Result<bool> {
        if let Progress::Packed(ring) = &*self.progress {
            return ring.is_exhausted(self.memory);
        }
        let more = self.vring.enable_notification().map_err(io::Error::other)?;
        if more {
            self.disable_notification()?;
        }
        Ok(!more)
    }

    /// Tells the driver of completed chains, if it wants to know.
    pub fn notify(&mut self) -> io::Result<()> {
        let wanted = match &mut *self.progress {
            Progress::Packed(ring) => ring.driver_wants_notification(self.memory)?,
            Progress::Split(_) => self.driver_wants_notification().map_err(io::Error::other)?,
        };
        if wanted {
            self.vring.signal_used_queue()?;
        }
        Ok(())
    }

    fn walk(&self, head: u16) -> Walk<'a, GuestRam> {
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        Walk::new(
            self.memory,
            GuestAddress(queue.desc_table()),
            queue.size(),
            head,
        )
    }

    /// Whether the driver wants to hear of used chains (virtio 1.3, sections 2.7.7.2 and 2.7.10).
    /// The queue implementation knows of EVENT_IDX only, and counts what it has added itself.
    fn driver_wants_notification(&mut self) -> Result<bool, virtio_queue::Error> {
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        let (old, new) = (self.told, queue.next_used());
        self.told = new;
        // The used index must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let field = |offset| {
            self.memory
                .load(GuestAddress(queue.avail_ring() + offset), Ordering::Relaxed)
                .map(u16::from_le)
                .map_err(virtio_queue::Error::GuestMemory)
        };
        if queue.event_idx_enabled() {
            let event = field(4 + 2 * u64::from(queue.size()))?;
            return Ok(new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old));
        }
        Ok(u32::from(field(0)?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}

/// Writes elements of the used ring that the driver does not see yet.
fn write_used(vring: &Vring, memory: &GuestRam, chains: &[(u16, u32)]) -> io::Result<()> {
    let mut state = vring.get_mut();
    let queue = state.get_queue_mut();
    let (first, size) = (queue.next_used(), queue.size());
    for (i, (head, len)) in (0u16..).zip(chains) {
        // virtio 1.3, section 2.7.8: flags and index, then elements of two 32-bit fields.
        let slot = u64::from(first.wrapping_add(i) % size);
        let element = u64::from(u32::from(*head).to_le()) | u64::from(len.to_le()) << 32;
        let at = GuestAddress(queue.used_ring() + 4 + 8 * slot);
        let written = memory.write_obj(element, at);
        written.map_err(io::Error::other)?;
    }
    queue.set_next_used(first.wrapping_add(chains.len() as u16));
    Ok(())
}
