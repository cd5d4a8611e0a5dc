//! A running ring as the pump sees it: chains are taken, and completed or put back.
//!
//! Each of the three is recorded, if the frontend keeps a record of requests in flight
//! ([`crate::inflight`]); chains that the record says were left by another backend come first.

use std::io;
use std::sync::MutexGuard;
use std::sync::atomic::{Ordering, fence};

use vhost_user_backend::{VringRwLock, VringT};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::chain::{Chain, ChainError};
use crate::inflight::Tracker;
use crate::walk::Walk;

/// A ring, its memory, and its part of the record.
pub struct Ring<'a> {
    vring: &'a VringRwLock,
    memory: &'a GuestMemoryMmap,
    tracker: MutexGuard<'a, Option<Tracker>>,
}

impl<'a> Ring<'a> {
    /// `vring` runs for as long as this exists.
    pub fn new(
        vring: &'a VringRwLock,
        memory: &'a GuestMemoryMmap,
        tracker: MutexGuard<'a, Option<Tracker>>,
    ) -> Self {
        Ring {
            vring,
            memory,
            tracker,
        }
    }

    /// The memory that the ring is in.
    pub fn memory(&self) -> &'a GuestMemoryMmap {
        self.memory
    }

    /// Takes the next chain, if there is one: its head, and whether it could be followed into
    /// `chain`.
    pub fn take(&mut self, chain: &mut Chain) -> io::Result<Option<(u16, Result<(), ChainError>)>> {
        if let Some(head) = self.tracker.as_ref().and_then(Tracker::left) {
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
        if let Some(tracker) = &mut *self.tracker {
            tracker.take(head).map_err(io::Error::other)?;
        }
        Ok(Some((head, chain.refill(descriptors))))
    }

    /// Puts the chain that was taken last back, not executed: it will be the next again.
    pub fn put_back(&mut self, head: u16) -> io::Result<()> {
        if let Some(tracker) = &*self.tracker {
            if tracker.left() == Some(head) {
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

    /// Gives a chain back to the driver with `len` bytes written into it.
    pub fn complete(&mut self, head: u16, len: u32) -> io::Result<()> {
        if let Some(tracker) = &*self.tracker {
            tracker.completing(head).map_err(io::Error::other)?;
        }
        self.vring.add_used(head, len).map_err(io::Error::other)?;
        if let Some(tracker) = &mut *self.tracker {
            let used = self.vring.get_ref().get_queue().next_used();
            tracker.completed(head, used).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Tells the driver of completed chains, if it wants to know.
    pub fn notify(&self) -> io::Result<()> {
        if self.driver_wants_notification().map_err(io::Error::other)? {
            self.vring.signal_used_queue()?;
        }
        Ok(())
    }

    fn walk(&self, head: u16) -> Walk<'a, GuestMemoryMmap> {
        let state = self.vring.get_ref();
        let queue = state.get_queue();
        Walk::new(
            self.memory,
            GuestAddress(queue.desc_table()),
            queue.size(),
            head,
        )
    }

    /// Whether the driver wants to hear of used chains (virtio 1.3, section 2.7.7.2). The queue
    /// implementation knows of EVENT_IDX only; without it the driver may have set a flag.
    fn driver_wants_notification(&self) -> Result<bool, virtio_queue::Error> {
        let mut state = self.vring.get_mut();
        let queue = state.get_queue_mut();
        if queue.event_idx_enabled() {
            return queue.needs_notification(self.memory);
        }
        // The used index must be visible before the flag is read.
        fence(Ordering::SeqCst);
        let flags = self
            .memory
            .load(GuestAddress(queue.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}
