//! A running ring as the pump sees it: chains are taken, and completed or put back.
//!
//! Each of the three is recorded, if the frontend keeps a record of requests in flight
//! ([`crate::inflight`]); chains that the record says were left by another backend come first.

use std::io;

use vhost_user_backend::VringT;

use crate::area::Areas;
use crate::chain::{Chain, ChainError};
use crate::inflight::Tracker;
use crate::packed::PackedRing;
use crate::page_log::GuestRam;
use crate::progress::Progress;
use crate::ram_area::{RamArea, Span};
use crate::split::{self, SplitRing};
use crate::vring::Vring;

/// A ring, its memory, and its part of the record.
pub struct Ring<'a> {
    vring: &'a Vring,
    memory: &'a GuestRam,
    kind: Kind<'a>,
}

/// The two kinds.
enum Kind<'a> {
    Split(SplitRing<'a>, Option<&'a mut Tracker>),
    Packed(&'a mut PackedRing, &'a Areas<RamArea>),
}

/// Where the areas of a ring are.
pub fn spans(vring: &Vring, progress: &Progress) -> Areas<Span> {
    match progress {
        Progress::Split(_) => split::spans(vring.get_ref().get_queue()),
        Progress::Packed(ring) => ring.spans(),
    }
}

impl<'a> Ring<'a> {
    /// `vring` runs for as long as this exists, and gets the final position at its end. Its areas
    /// are at its [`spans`] of `memory`.
    pub fn new(
        vring: &'a Vring,
        memory: &'a GuestRam,
        areas: &'a Areas<RamArea>,
        progress: &'a mut Progress,
    ) -> Self {
        let kind = match progress {
            Progress::Split(tracker) => {
                let ring = SplitRing::new(areas, vring.get_ref().get_queue());
                Kind::Split(ring, tracker.as_mut())
            }
            Progress::Packed(ring) => Kind::Packed(ring, areas),
        };
        Ring {
            vring,
            memory,
            kind,
        }
    }

    /// The memory that the ring is in.
    pub fn memory(&self) -> &'a GuestRam {
        self.memory
    }

    /// Takes the next chain, if there is one: its head (of a packed ring, a number that stands for
    /// it), and whether it could be followed into `chain`.
    pub fn take(&mut self, chain: &mut Chain) -> io::Result<Option<(u16, Result<(), ChainError>)>> {
        let memory = self.memory;
        let (ring, mut tracker) = match &mut self.kind {
            Kind::Packed(ring, areas) => return ring.take(memory, areas, chain),
            Kind::Split(ring, tracker) => (ring, tracker.as_deref_mut()),
        };
        if let Some(head) = tracker.as_deref_mut().and_then(Tracker::take_left) {
            return Ok(Some((
                head,
                chain.refill(ring.walk(memory, head), ring.longest_chain()),
            )));
        }
        let Some(head) = ring.take()? else {
            return Ok(None);
        };
        if let Some(tracker) = tracker {
            tracker.take(head).map_err(io::Error::other)?;
        }
        Ok(Some((
            head,
            chain.refill(ring.walk(memory, head), ring.longest_chain()),
        )))
    }

    /// Puts the chain that was taken last back, not executed: it will be the next again.
    pub fn put_back(&mut self, head: u16) -> io::Result<()> {
        let (ring, tracker) = match &mut self.kind {
            Kind::Packed(ring, _) => return ring.put_back(head),
            Kind::Split(ring, tracker) => (ring, tracker),
        };
        if let Some(tracker) = tracker {
            if tracker.put_left_back(head) {
                return Ok(());
            }
            tracker.put_back(head).map_err(io::Error::other)?;
        }
        ring.put_back();
        Ok(())
    }

    /// Gives chains back to the driver, each with so many bytes written into it: the driver sees
    /// all of them or none.
    pub fn complete(&mut self, chains: &[(u16, u32)]) -> io::Result<()> {
        let (ring, tracker) = match &mut self.kind {
            Kind::Packed(ring, areas) => return ring.complete(areas, chains),
            Kind::Split(ring, tracker) => (ring, tracker),
        };
        if chains.is_empty() {
            return Ok(());
        }
        if let Some(tracker) = &tracker {
            for (head, _) in chains {
                tracker.completing(*head).map_err(io::Error::other)?;
            }
        }
        ring.write_used(chains)?;
        ring.publish()?;
        if let Some(tracker) = tracker {
            for (head, _) in chains {
                tracker.completed(*head).map_err(io::Error::other)?;
            }
            let used = ring.place().used;
            tracker.set_used(used).map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Whether the frontend keeps a record of the ring's requests in flight.
    pub fn has_record(&self) -> bool {
        match &self.kind {
            Kind::Packed(ring, _) => ring.has_record(),
            Kind::Split(_, tracker) => tracker.is_some(),
        }
    }

    /// Whether the ring has a chain that is called `head`, and can give it back.
    pub fn has(&self, head: u16) -> bool {
        match &self.kind {
            Kind::Packed(..) => true,
            Kind::Split(ring, _) => ring.has(head),
        }
    }

    /// Whether the driver has added something. Cheaper than [`take`](Self::take), and no promise
    /// that it will kick.
    pub fn has_more(&mut self) -> io::Result<bool> {
        match &mut self.kind {
            Kind::Packed(ring, areas) => ring.is_available(areas),
            Kind::Split(ring, _) => ring.has_more(),
        }
    }

    /// The driver need not kick.
    pub fn disable_notification(&mut self) -> io::Result<()> {
        match &mut self.kind {
            Kind::Packed(ring, areas) => ring.disable_notification(areas),
            Kind::Split(ring, _) => ring.disable_notification(),
        }
    }

    /// Whether the driver has added nothing since the ring was found empty. It kicks when it
    /// adds something from here on.
    pub fn is_exhausted(&mut self) -> io::Result<bool> {
        match &mut self.kind {
            Kind::Packed(ring, areas) => ring.is_exhausted(areas),
            Kind::Split(ring, _) => ring.is_exhausted(),
        }
    }

    /// Tells the driver of completed chains, if it wants to know.
    pub fn notify(&mut self) -> io::Result<()> {
        let wanted = match &mut self.kind {
            Kind::Packed(ring, areas) => ring.driver_wants_notification(areas)?,
            Kind::Split(ring, _) => ring.driver_wants_notification()?,
        };
        if wanted {
            self.vring.signal_used_queue()?;
        }
        Ok(())
    }
}

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        if let Kind::Split(ring, _) = &self.kind {
            let place = ring.place();
            self.vring.set_queue_next_avail(place.available);
            self.vring.set_queue_next_used(place.used);
        }
    }
}
