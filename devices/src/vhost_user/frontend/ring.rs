//! A queue that the driver has started, and where a new backend takes it up.
//!
//! Only the backend knows how far it has got in a queue. When it dies, the
//! queue itself has to tell (virtio 1.3, section 2.7):
//!
//! - The available index counts the chains that the driver has added, the used
//!   index those that the device has returned, both modulo 2^16.
//! - A chain is taken before it is used. So the lost position lies from the used
//!   to the available index, and what lies between was *in flight* or not taken.
//! - A device that uses chains in the order in which it takes them has used
//!   exactly those before the used index, where the new backend resumes. Chains
//!   that it had taken beyond are taken again.
//! - A device that uses them in any order may have used a chain beyond and left
//!   one before. Nothing in the queue says which, since the driver may already
//!   have given the descriptors of the used ones to others. Resuming at the
//!   used index would use some twice and some never. Only when both indices are
//!   the same was nothing in flight.
//!
//! All this holds for split queues. A packed one (section 2.8) has no index in
//! memory: only the device knows its position. It tells the position when it
//! stops, or leaves it behind in a record of requests in flight.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::stall::Stall;
use crate::virtio::{Format, GuestMemory, Kick, QueueConfig, kick};

/// Both positions of a packed queue that has not been used: at its first entry, with
/// both wrap counters 1 (section 2.8.1). The vhost-user document, "Vring descriptor
/// indices for packed virtqueues", has the driver's position in the lower half, the
/// device's in the upper, and the wrap counter in each half's highest bit.
const PACKED_START: u32 = 0x8000_8000;
const PACKED_WRAP: u32 = 0x8000;

/// Where a packed descriptor has its flags, and the two that tell by comparison with the
/// wrap counter who wrote it last (section 2.8.13).
const PACKED_FLAGS: u64 = 14;
const PACKED_AVAIL: u16 = 1 << 7;
const PACKED_USED: u16 = 1 << 15;

/// Why another backend cannot resume a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotResume {
    /// Requests that a lost backend had may be done, half done or not begun.
    InFlight,
    /// How far a lost backend has got in a packed queue.
    Position,
}

/// Evidence of requests in flight, other than the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    None,
    /// The device uses chains in the order it takes them.
    InOrder,
    /// The backends keep a record. The new one resumes the requests that it finds
    /// there, and takes a packed queue's position from it too.
    Inflight,
}

/// A queue and its event descriptors, as long as the driver wants it to run.
pub struct Ring {
    queue: QueueConfig,
    call: EventFd,
    /// How often its backends have reported an error.
    errors: u64,
    /// Whether anybody serves it.
    stall: Stall,
    kick: Arc<Kick>,
    /// The descriptor on which its backend waits for kicks, while it has one.
    given: Option<EventFd>,
    /// Whether that backend was seen to have read it.
    reads_kicks: bool,
    progress: Progress,
    /// The base that the last backend began with.
    initial_base: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No backend has seen the queue. All that the driver has added already is
    /// new to the device.
    Untouched,
    /// A backend is, or may be, at work on it.
    Running,
    /// The backend was lost, at these indices.
    Lost(Indices),
    /// The backend was lost somewhere in a packed queue.
    LostPacked,
    /// The backend has stopped it in order, with nothing in flight. The queue resumes
    /// at this base.
    Stopped(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indices {
    available: u16,
    used: u16,
}

impl Ring {
    /// Fails when the host is out of descriptors.
    pub fn new(queue: &QueueConfig, kick: &Arc<Kick>, call: &EventFd) -> io::Result<Self> {
        Ok(Self {
            queue: *queue,
            call: call.try_clone()?,
            errors: 0,
            stall: Stall::default(),
            kick: kick.clone(),
            given: None,
            reads_kicks: false,
            progress: Progress::Untouched,
            initial_base: match queue.format {
                Format::Split => 0,
                Format::Packed => PACKED_START,
            },
        })
    }

    /// The driver's setup of the queue.
    pub fn queue(&self) -> &QueueConfig {
        &self.queue
    }

    /// The call descriptor, for a backend. Fails when the host is out of descriptors.
    pub fn call(&self) -> io::Result<EventFd> {
        self.call.try_clone()
    }

    /// A backend reports an error on it.
    pub fn count_error(&mut self) {
        self.errors += 1;
    }

    /// How often its backends have.
    pub fn errors(&self) -> u64 {
        self.errors
    }

    /// Checks whether anybody serves it. Returns whether that is to be reported now.
    pub fn check_stall(&mut self, memory: &GuestMemory) -> bool {
        self.reads_kicks |= self.given.is_some() && !self.has_unread_kicks();
        let (waits, used) = (self.is_waiting(memory), self.used(memory));
        self.stall.check(waits, used)
    }

    /// Whether unread kicks mean that the backend has not heard of them. One that waits for edges,
    /// or polls, leaves all of them unread, also the one with which each start begins.
    pub fn reads_kicks(&self) -> bool {
        self.reads_kicks
    }

    /// For how long requests have waited on it that nobody serves, as the checks have it.
    pub fn stalled(&self, memory: &GuestMemory) -> Duration {
        if !self.is_waiting(memory) {
            return Duration::ZERO;
        }
        self.stall.time(self.used(memory))
    }

    /// Whether there are requests, and kicks that the backend has not read.
    fn is_waiting(&self, memory: &GuestMemory) -> bool {
        self.is_running()
            && self.is_split()
            && self.may_be_in_flight(memory)
            && self.has_unread_kicks()
    }

    /// The base of a queue that no backend has seen. All that the driver has added
    /// already is new to the device.
    pub fn initial_base(&self) -> u32 {
        self.initial_base
    }

    /// A backend is about to be told of it, and of this base.
    pub fn mark_running(&mut self, base: u32) {
        self.progress = Progress::Running;
        self.initial_base = base;
    }

    /// A kick descriptor for the backend that is about to start it. Fails when the host is
    /// out of descriptors.
    pub fn connect(&mut self) -> io::Result<EventFd> {
        let kick = self.kick.connect()?;
        self.given = Some(kick.try_clone()?);
        self.reads_kicks = false;
        Ok(kick)
    }

    /// Keeps the driver's kicks from the backend until the next start. Where the host
    /// is out of descriptors they still reach it.
    pub fn hold_kicks(&self) {
        if let Err(error) = self.kick.hold() {
            tracing::debug!(%error, "kicks cannot be held");
        }
    }

    /// Has the backend look at the ring once more, though kicks are held.
    pub fn remind(&self) {
        if let Some(kick) = &self.given {
            kick::signal(kick);
        }
    }

    /// Whether the backend has yet to read kicks that have reached it.
    pub fn has_unread_kicks(&self) -> bool {
        let kick = self.given.as_ref();
        kick.is_some_and(kick::is_unread)
    }

    /// Kicks the backend and interrupts the driver: either may have missed the
    /// other's last notification.
    pub fn signal(&self) {
        self.kick.signal();
        kick::signal(&self.call);
    }

    pub fn is_running(&self) -> bool {
        self.progress == Progress::Running
    }

    /// Whether the rings tell what has been taken and used.
    pub fn is_split(&self) -> bool {
        self.queue.format == Format::Split
    }

    /// The backend is gone. It has taken nothing that the driver adds from now
    /// on, therefore the indices count as they are now.
    pub fn mark_lost(&mut self, memory: &GuestMemory) {
        self.given = None;
        if self.is_running() {
            self.progress = self.lost_at(memory);
        }
    }

    fn lost_at(&self, memory: &GuestMemory) -> Progress {
        match self.queue.format {
            Format::Split => Progress::Lost(self.indices(memory)),
            Format::Packed => Progress::LostPacked,
        }
    }

    /// The index behind the last chain that the driver has added.
    pub fn available(&self, memory: &GuestMemory) -> u16 {
        self.indices(memory).available
    }

    /// The index behind the last chain that the device has returned.
    pub fn used(&self, memory: &GuestMemory) -> u16 {
        self.indices(memory).used
    }

    /// Whether requests may be in flight. A packed ring does not show it.
    pub fn may_be_in_flight(&self, memory: &GuestMemory) -> bool {
        let Indices { available, used } = self.indices(memory);
        !self.is_split() || available != used && self.is_plausible(memory)
    }

    /// Whether the chains between a split ring's indices fit in the ring. Otherwise the
    /// driver has broken it, and nobody finishes it.
    pub fn is_plausible(&self, memory: &GuestMemory) -> bool {
        let Indices { available, used } = self.indices(memory);
        available.wrapping_sub(used) <= self.queue.size
    }

    /// Whether the device has returned all chains up to this index, or more.
    pub fn has_used_up_to(&self, index: u16, memory: &GuestMemory) -> bool {
        // There are never more than half of all indices between the two.
        self.used(memory).wrapping_sub(index) < 1 << 15
    }

    /// Whether all before `base` has been used.
    ///
    /// DPDK finishes what it has taken before it stops, and leaves the device's position
    /// in a packed queue out. That 0 is also a position: the first entry, with wrap
    /// counter 0. A device that stands there has the driver before it in the same round,
    /// or at the same entry in the next, and has not used this entry.
    fn is_drained(&self, base: u32, memory: &GuestMemory) -> bool {
        let (driver, device) = (base & 0xffff, base >> 16);
        match self.queue.format {
            Format::Split => u32::from(self.used(memory)) == driver,
            Format::Packed if device == 0 => {
                driver == 0 || driver > PACKED_WRAP || !self.waits_at_first(memory)
            }
            Format::Packed => device == driver,
        }
    }

    /// Whether the first descriptor of a packed queue is available with wrap counter 0.
    fn waits_at_first(&self, memory: &GuestMemory) -> bool {
        let at = GuestAddress(self.queue.descriptors.0 + PACKED_FLAGS);
        let flags = memory.load(at, Ordering::Acquire).map(u16::from_le);
        flags.is_ok_and(|flags| flags & (PACKED_AVAIL | PACKED_USED) == PACKED_USED)
    }

    /// The backend has stopped it, and says at which `base`. The base counts where
    /// nothing is left in flight.
    pub fn mark_stopped(&mut self, base: u32, memory: &GuestMemory) {
        self.given = None;
        self.progress = match (self.is_drained(base, memory), self.queue.format) {
            (false, _) => self.lost_at(memory),
            // A split ring's index has 16 bits.
            (true, Format::Split) => Progress::Stopped(base & 0xffff),
            (true, Format::Packed) => Progress::Stopped((base & 0xffff) * 0x1_0001),
        };
    }

    /// Where a new backend begins: the index of the available-ring entry that it takes
    /// first or, of a packed queue, both positions.
    pub fn base(&self, evidence: Evidence, memory: &GuestMemory) -> Result<u32, CannotResume> {
        let lost = match (self.progress, evidence) {
            (Progress::Untouched, _) => return Ok(self.initial_base),
            (Progress::Running, _) => return Err(CannotResume::InFlight),
            (Progress::Stopped(base), _) => return Ok(base),
            // It counts only for a record that the lost backend had not begun.
            (Progress::LostPacked, Evidence::Inflight) => return Ok(self.initial_base),
            (Progress::LostPacked, _) => return Err(CannotResume::Position),
            (Progress::Lost(indices), _) => indices,
        };
        // A backend that closed its socket and lived on may have used more.
        let used = self.indices(memory).used;
        let was_idle = lost.available == lost.used && lost.used == used;
        if evidence != Evidence::None || was_idle {
            Ok(used.into())
        } else {
            Err(CannotResume::InFlight)
        }
    }

    /// Both rings are within guest RAM and aligned, so that reading them does
    /// not fail; if it did, the indices would differ and nothing go wrong.
    fn indices(&self, memory: &GuestMemory) -> Indices {
        // Section 2.7.6 and 2.7.8: flags, then the index, 16 bits each.
        let index = |ring: GuestAddress| {
            let at = GuestAddress(ring.0 + 2);
            memory.load::<u16>(at, Ordering::Acquire).map(u16::from_le)
        };
        Indices {
            available: index(self.queue.available).unwrap_or(u16::MAX),
            used: index(self.queue.used).unwrap_or(0),
        }
    }
}

#[cfg(test)]
#[path = "ring_test.rs"]
mod tests;
