//! Where the driver's notifications of a queue go (virtio 1.3, section 4.2.2, QueueNotify).
//!
//! Frontends of other VMMs give a backend one kick descriptor for each start of a ring and
//! take it out of use when the ring has stopped. Backends rely on that. Those on rust-vmm's
//! crate wait on every descriptor that they were ever given for a ring but read the latest,
//! and end their thread when another one is readable. So nobody is given a second
//! descriptor for a ring that runs, and no descriptor is given out twice. Kicks are held
//! back by pointing the guest's notifications somewhere else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{EFD_CLOEXEC, EFD_NONBLOCK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

use crate::hypervisor::Hypervisor;

/// The kicks of one queue. It outlives resets of the device and the loss of its backend.
pub struct Kick {
    hypervisor: Arc<dyn Hypervisor>,
    /// The address of QueueNotify.
    register: GuestAddress,
    queue: u16,
    state: Mutex<State>,
}

/// What the kernel says of an eventfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KickCounter {
    /// Signals that nobody has read.
    pub signals: u64,
    /// The eventfd's number, the same in each process that has it. Kernels before 5.2 do not tell.
    pub id: Option<u64>,
}

struct State {
    /// The descriptor that a kick signals.
    target: EventFd,
    /// A backend has been given it.
    is_given: bool,
    /// The kernel signals it. Otherwise kicks exit to user space, which does.
    is_wired: bool,
    /// Kicks are to exit.
    is_trapped: bool,
}

impl Kick {
    /// Has the guest's notifications of `queue` signal a descriptor from here on.
    pub fn new(
        hypervisor: Arc<dyn Hypervisor>,
        register: GuestAddress,
        queue: u16,
    ) -> io::Result<Self> {
        let target = event_fd()?;
        hypervisor.add_ioeventfd(register, queue.into(), &target)?;
        let state = State {
            target,
            is_given: false,
            is_wired: true,
            is_trapped: false,
        };
        Ok(Self {
            hypervisor,
            register,
            queue,
            state: Mutex::new(state),
        })
    }

    /// A descriptor for a backend to wait on. It has been given to nobody before. It holds
    /// the kicks since [`hold`](Self::hold), and one more, as in QEMU: a thread that is
    /// still about to read its kick from an earlier start finds one too.
    pub fn connect(&self) -> io::Result<EventFd> {
        let mut state = self.lock();
        if state.is_given {
            self.renew(&mut state)?;
        }
        let given = state.target.try_clone()?;
        state.is_given = true;
        signal(&given);
        Ok(given)
    }

    /// Keeps kicks from the holder of the last descriptor, until the next
    /// [`connect`](Self::connect). Kicks that come meanwhile are not lost.
    pub fn hold(&self) -> io::Result<()> {
        let mut state = self.lock();
        match state.is_given {
            true => self.renew(&mut state),
            false => Ok(()),
        }
    }

    /// Kicks in the guest's place.
    pub fn signal(&self) {
        signal(&self.lock().target);
    }

    /// The counter of its eventfd, where the kernel tells. Asking takes no signal.
    pub fn counter(&self) -> Option<KickCounter> {
        counter(&self.lock().target)
    }

    /// Has the guest's kicks exit to user space, or no longer.
    pub fn trap(&self, trap: bool) -> io::Result<()> {
        let mut state = self.lock();
        if trap {
            self.unwire(&mut state)?;
        } else {
            self.wire(&mut state)?;
        }
        state.is_trapped = trap;
        Ok(())
    }

    /// Points the guest's notifications to a new descriptor. A notification that comes
    /// in between exits, and waits for the transport.
    fn renew(&self, state: &mut State) -> io::Result<()> {
        let new = event_fd()?;
        self.unwire(state)?;
        state.target = new;
        state.is_given = false;
        if !state.is_trapped
            && let Err(error) = self.wire(state)
        {
            let (queue, error): (_, &dyn std::error::Error) = (self.queue, &error);
            tracing::warn!(queue, error, "kicks exit from here on: they will be slow");
        }
        Ok(())
    }

    fn wire(&self, state: &mut State) -> io::Result<()> {
        if !state.is_wired {
            let queue = self.queue.into();
            self.hypervisor
                .add_ioeventfd(self.register, queue, &state.target)?;
            state.is_wired = true;
        }
        Ok(())
    }

    fn unwire(&self, state: &mut State) -> io::Result<()> {
        if state.is_wired {
            let queue = self.queue.into();
            self.hypervisor
                .remove_ioeventfd(self.register, queue, &state.target)?;
            state.is_wired = false;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error means that the counter is full: the kick is there.
pub fn signal(kick: &EventFd) {
    let _ = kick.write(1);
}

/// Whether nobody has read it since it was signalled.
#[allow(unsafe_code)]
pub fn is_unread(kick: &EventFd) -> bool {
    // SAFETY: the descriptor is open as long as the `EventFd` that is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(kick.as_raw_fd()) };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1))
}

/// By proc_pid_fdinfo(5). A read of the descriptor would clear it.
fn counter(kick: &EventFd) -> Option<KickCounter> {
    let path = format!("/proc/self/fdinfo/{}", kick.as_raw_fd());
    let info = std::fs::read_to_string(path).ok()?;
    let field = |name: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    Some(KickCounter {
        signals: u64::from_str_radix(field("eventfd-count:")?, 16).ok()?,
        id: field("eventfd-id:").and_then(|id| id.parse().ok()),
    })
}

/// Non-blocking, since it is shared with processes that may read it twice.
pub fn event_fd() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::super::fakes::FakeHypervisor;
    use super::*;

    const REGISTER: GuestAddress = GuestAddress(0xd000_0050);
    const QUEUE: u16 = 3;

    fn kick() -> (Arc<FakeHypervisor>, Kick) {
        let hypervisor = Arc::new(FakeHypervisor::default());
        let kick = Kick::new(hypervisor.clone(), REGISTER, QUEUE).unwrap();
        (hypervisor, kick)
    }

    /// Kicks as the guest does.
    fn notify(hypervisor: &FakeHypervisor) {
        let wired = hypervisor.ioeventfds.lock().unwrap();
        let [(address, queue, fd)] = &wired[..] else {
            panic!("{} descriptors are wired", wired.len());
        };
        assert_eq!((*address, *queue), (REGISTER, QUEUE.into()));
        fd.write(1).unwrap();
    }

    #[test]
    fn kicks_from_before_a_backend_is_there_are_in_what_it_gets() {
        let (hypervisor, kick) = kick();
        notify(&hypervisor);
        assert_eq!(kick.connect().unwrap().read().unwrap(), 2);
    }

    #[test]
    fn held_kicks_reach_the_next_backend_and_not_the_last() {
        let (hypervisor, kick) = kick();
        let first = kick.connect().unwrap();
        notify(&hypervisor);
        assert_eq!(first.read().unwrap(), 2);
        kick.hold().unwrap();
        notify(&hypervisor);
        kick.hold().unwrap();
        kick.signal();
        assert!(first.read().is_err(), "it is out of use");
        assert_eq!(kick.connect().unwrap().read().unwrap(), 3);
    }

    #[test]
    fn each_start_has_a_descriptor_of_its_own() {
        let (hypervisor, kick) = kick();
        let first = kick.connect().unwrap();
        let second = kick.connect().unwrap();
        first.read().unwrap();
        notify(&hypervisor);
        assert!(first.read().is_err());
        assert_eq!(second.read().unwrap(), 2);
    }

    #[test]
    fn kicks_are_counted_and_stay_where_they_are() {
        let (hypervisor, kick) = kick();
        let signals = || kick.counter().map(|counter| counter.signals);
        assert_eq!(signals(), Some(0));
        let given = kick.connect().unwrap();
        for _ in 0..15 {
            notify(&hypervisor);
        }
        assert_eq!((signals(), signals()), (Some(16), Some(16)));
        assert_eq!(given.read().unwrap(), 16);
        assert_eq!(signals(), Some(0));
    }

    #[test]
    fn trapped_kicks_exit_whoever_has_the_descriptor_and_go_there_by_hand() {
        let (hypervisor, kick) = kick();
        let first = kick.connect().unwrap();
        first.read().unwrap();
        for _ in 0..2 {
            kick.trap(true).unwrap();
            assert!(hypervisor.ioeventfds.lock().unwrap().is_empty());
        }
        kick.signal();
        assert_eq!(first.read().unwrap(), 1);
        let second = kick.connect().unwrap();
        assert!(hypervisor.ioeventfds.lock().unwrap().is_empty());
        kick.trap(false).unwrap();
        notify(&hypervisor);
        assert_eq!(second.read().unwrap(), 2);
    }

    #[test]
    fn where_the_host_has_no_room_for_the_next_descriptor_kicks_exit() {
        let (hypervisor, kick) = kick();
        kick.connect().unwrap();
        hypervisor.refuse_ioeventfds(true);
        kick.hold().unwrap();
        kick.signal();
        let next = kick.connect().unwrap();
        assert_eq!(next.read().unwrap(), 2);
        hypervisor.refuse_ioeventfds(false);
        let last = kick.connect().unwrap();
        notify(&hypervisor);
        assert_eq!(last.read().unwrap(), 2, "and no longer when it has");
    }
}
