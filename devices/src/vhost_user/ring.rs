//! A queue that the driver has started, and where a new backend takes it up.
//!
//! How far a backend had got in a queue is known to it alone; when it dies, the
//! queue itself has to tell (virtio 1.3, section 2.7):
//!
//! - The available index counts the chains that the driver has added, the used
//!   index those that the device has returned, both modulo 2^16.
//! - A chain is taken before it is used. So the lost position lies from the used
//!   to the available index, and what lies between was *in flight* or not taken.
//! - A device that uses chains in the order in which it takes them has used
//!   exactly those before the used index: the position to go on from. What it
//!   had taken beyond is taken again.
//! - A device that uses them in any order may have used a chain beyond and left
//!   one before. Nothing in the queue says which, since the driver may already
//!   have given the descriptors of the used ones to others. Going on from the
//!   used index would use some twice and some never. Only when both indices are
//!   the same was nothing in flight.

use std::io;
use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::virtio::{GuestMemory, QueueConfig};

/// Requests that a lost backend had may be done, half done or not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight;

/// A queue and its event descriptors, as long as the driver wants it to run.
#[derive(Debug)]
pub struct Ring {
    pub queue: QueueConfig,
    pub kick: EventFd,
    pub call: EventFd,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// No backend has seen the queue. What the driver has put in already is all
    /// new to the device.
    Untouched,
    /// A backend is, or may be, at work on it.
    Running,
    /// The backend was lost, at these indices.
    Left(Indices),
    /// The backend has stopped it in order, with nothing in flight, before this
    /// available-ring entry.
    Stopped(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Indices {
    available: u16,
    used: u16,
}

impl Ring {
    /// Fails when the host is out of descriptors.
    pub fn new(queue: &QueueConfig, kick: &EventFd, call: &EventFd) -> io::Result<Self> {
        Ok(Self {
            queue: *queue,
            kick: kick.try_clone()?,
            call: call.try_clone()?,
            progress: Progress::Untouched,
        })
    }

    /// A backend is about to be told of it.
    pub fn mark_running(&mut self) {
        self.progress = Progress::Running;
    }

    /// Kicks the backend and interrupts the driver, either of whom may have
    /// missed the other's last sign.
    pub fn signal(&self) {
        for fd in [&self.kick, &self.call] {
            // An error means that the counter is full: the sign is there.
            let _ = fd.write(1);
        }
    }

    pub fn is_running(&self) -> bool {
        self.progress == Progress::Running
    }

    /// The backend is gone. What the driver adds from now on nobody has taken,
    /// therefore the indices count as they are now.
    pub fn mark_left(&mut self, memory: &GuestMemory) {
        if self.is_running() {
            self.progress = Progress::Left(self.indices(memory));
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

    /// Whether the device has returned all chains up to this index, or more.
    pub fn has_used_up_to(&self, index: u16, memory: &GuestMemory) -> bool {
        // There are never more than half of all indices between the two.
        self.used(memory).wrapping_sub(index) < 1 << 15
    }

    /// Whether all before the available-ring entry `base` has been used.
    pub fn is_drained(&self, base: u16, memory: &GuestMemory) -> bool {
        self.used(memory) == base
    }

    /// The backend has stopped it, it says before the available-ring entry
    /// `base`. It is believed where nothing is left in flight.
    pub fn mark_stopped(&mut self, base: u16, memory: &GuestMemory) {
        self.progress = if self.is_drained(base, memory) {
            Progress::Stopped(base)
        } else {
            Progress::Left(self.indices(memory))
        };
    }

    /// The index of the available-ring entry that a new backend takes first.
    ///
    /// `is_known` says that what is in flight is known: because the device uses
    /// chains in the order it takes them, or because the backends track them. In
    /// the latter case the new one adds those that it finds tracked by itself,
    /// as libvhost-user does.
    pub fn base(&self, is_known: bool, memory: &GuestMemory) -> Result<u16, InFlight> {
        let left = match self.progress {
            Progress::Untouched => return Ok(0),
            Progress::Running => return Err(InFlight),
            Progress::Stopped(base) => return Ok(base),
            Progress::Left(indices) => indices,
        };
        // A backend that closed its socket and lived on may have used more.
        let used = self.indices(memory).used;
        let was_idle = left.available == left.used && left.used == used;
        if is_known || was_idle {
            Ok(used)
        } else {
            Err(InFlight)
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
mod tests {
    use libc::EFD_NONBLOCK;

    use super::*;

    const AVAILABLE: GuestAddress = GuestAddress(0x1000);
    const USED: GuestAddress = GuestAddress(0x2000);

    struct Test {
        memory: GuestMemory,
        ring: Ring,
    }

    impl Test {
        fn new() -> Self {
            let queue = QueueConfig {
                size: 16,
                descriptors: GuestAddress(0),
                available: AVAILABLE,
                used: USED,
            };
            let fd = EventFd::new(EFD_NONBLOCK).unwrap();
            Self {
                memory: GuestMemory::from_ranges(&[(GuestAddress(0), 0x3000)]).unwrap(),
                ring: Ring::new(&queue, &fd, &fd).unwrap(),
            }
        }

        fn set(&self, available: u16, used: u16) {
            for (ring, index) in [(AVAILABLE, available), (USED, used)] {
                let at = GuestAddress(ring.0 + 2);
                self.memory.write_obj(index.to_le(), at).unwrap();
            }
        }

        /// A backend is lost when the indices are these.
        fn lose(&mut self, available: u16, used: u16) {
            self.ring.mark_running();
            self.set(available, used);
            self.ring.mark_left(&self.memory);
        }

        fn base(&self, is_known: bool) -> Result<u16, InFlight> {
            self.ring.base(is_known, &self.memory)
        }
    }

    #[test]
    fn a_queue_that_no_backend_has_seen_starts_at_its_beginning() {
        let mut test = Test::new();
        test.set(7, 0);
        assert_eq!((test.base(false), test.base(true)), (Ok(0), Ok(0)));
        test.ring.mark_left(&test.memory);
        assert_eq!(test.base(false), Ok(0), "nor does a loss change that");
    }

    #[test]
    fn requests_in_flight_need_knowledge() {
        let mut test = Test::new();
        test.lose(9, 5);
        assert_eq!(test.base(true), Ok(5));
        assert_eq!(test.base(false), Err(InFlight));
    }

    #[test]
    fn requests_made_after_the_loss_are_not_in_flight() {
        let mut test = Test::new();
        test.lose(u16::MAX, u16::MAX);
        test.set(3, u16::MAX);
        assert_eq!(test.base(false), Ok(u16::MAX));
    }

    #[test]
    fn a_backend_that_works_on_after_closing_its_socket_is_noticed() {
        let mut test = Test::new();
        test.lose(5, 5);
        test.set(8, 6);
        assert_eq!(test.base(false), Err(InFlight));
        assert_eq!(test.base(true), Ok(6));
    }

    #[test]
    fn a_backend_that_stopped_in_order_has_left_nothing_in_flight() {
        let mut test = Test::new();
        test.ring.mark_running();
        test.set(9, 5);
        test.ring.mark_stopped(5, &test.memory);
        test.ring.mark_left(&test.memory);
        assert_eq!((test.base(false), test.base(true)), (Ok(5), Ok(5)));
    }

    #[test]
    fn a_backend_that_stopped_with_requests_in_flight_is_as_one_lost() {
        let mut test = Test::new();
        test.ring.mark_running();
        test.set(9, 5);
        test.ring.mark_stopped(7, &test.memory);
        assert_eq!((test.base(false), test.base(true)), (Err(InFlight), Ok(5)));
    }

    #[test]
    fn what_has_been_used_is_compared_modulo_2_to_the_16() {
        let test = Test::new();
        for (used, index, expected) in [
            (5, 5, true),
            (6, 5, true),
            (4, 5, false),
            (2, 65535, true),
            (65535, 2, false),
        ] {
            test.set(9, used);
            assert_eq!(
                test.ring.has_used_up_to(index, &test.memory),
                expected,
                "{used} {index}"
            );
        }
        assert_eq!(
            (
                test.ring.available(&test.memory),
                test.ring.used(&test.memory)
            ),
            (9, 65535)
        );
    }

    #[test]
    fn a_second_loss_counts_from_the_second_backend() {
        let mut test = Test::new();
        test.lose(5, 5);
        test.lose(8, 7);
        assert_eq!(test.base(false), Err(InFlight));
        test.lose(8, 8);
        assert_eq!(test.base(false), Ok(8));
    }
}
