//! What happens to a machine, for those who follow it from outside.
//!
//! Whoever tells of an event never waits for those who follow: each has a queue with an
//! end, and one that does not keep up is cut off.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use crate::events::borrow;

/// Followers at the same time.
const MAX_FOLLOWERS: usize = 8;

/// Events that wait for one follower. One that lets so many wait is cut off.
const CAPACITY: usize = 256;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum MachineEvent {
    /// The connection to a device's backend is gone.
    BackendLost {
        device: String,
        reason: String,
    },
    /// A backend serves the device: its `connections`th.
    BackendConnected {
        device: String,
        connections: u64,
    },
    /// The driver has been told to reset the device.
    NeedsReset {
        device: String,
        reason: String,
    },
    GuestCrashed {
        vcpu: usize,
        reason: String,
    },
    GuestPanicked,
    /// The machine is as at power-on.
    Reset,
    /// By a command, not by a debugger.
    Paused,
    Resumed,
    GdbAttached,
    /// `tracing`: its trace continues.
    GdbDetached {
        tracing: bool,
    },
    /// The last one: the machine ends, with this exit status.
    Ended {
        status: u8,
    },
}

impl MachineEvent {
    /// As `event` has it in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::BackendLost { .. } => "backend_lost",
            Self::BackendConnected { .. } => "backend_connected",
            Self::NeedsReset { .. } => "needs_reset",
            Self::GuestCrashed { .. } => "guest_crashed",
            Self::GuestPanicked => "guest_panicked",
            Self::Reset => "reset",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::GdbAttached => "gdb_attached",
            Self::GdbDetached { .. } => "gdb_detached",
            Self::Ended { .. } => "ended",
        }
    }
}

/// Where events are told, and followed.
#[derive(Default)]
pub struct MachineEvents {
    state: Mutex<State>,
    present: Arc<Present>,
}

/// How many follow.
#[derive(Default)]
struct Present {
    count: Mutex<usize>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Events so far.
    count: u64,
    followers: Vec<Weak<Queue>>,
}

/// The events that one follower has yet to take.
struct Queue {
    waiting: Mutex<Waiting>,
    wake: EventFd,
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<(u64, MachineEvent)>,
    is_cut_off: bool,
    is_over: bool,
}

/// What a follower finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// With its number, which counts from 1.
    Event(u64, MachineEvent),
    Nothing,
    /// It was too slow, and misses what comes behind the events that it has had.
    CutOff,
    /// The machine has ended.
    End,
}

/// Nobody more can follow.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("{MAX_FOLLOWERS} clients follow the machine's events already")]
    TooMany,
    #[error("cannot make an eventfd")]
    EventFd(#[source] io::Error),
}

/// One who follows. Readable while there is something to take.
pub struct Follower {
    queue: Arc<Queue>,
    present: Arc<Present>,
}

impl MachineEvents {
    pub fn tell(&self, event: MachineEvent) {
        let mut state = lock(&self.state);
        state.count += 1;
        let count = state.count;
        state.followers.retain(|follower| {
            let Some(queue) = follower.upgrade() else {
                return false;
            };
            queue.put(count, event.clone())
        });
    }

    /// Follows from here on.
    pub fn follow(&self) -> Result<Follower, FollowError> {
        let wake = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(FollowError::EventFd)?;
        let mut count = lock(&self.present.count);
        if *count == MAX_FOLLOWERS {
            return Err(FollowError::TooMany);
        }
        *count += 1;
        let waiting = Mutex::default();
        let queue = Arc::new(Queue { waiting, wake });
        lock(&self.state).followers.push(Arc::downgrade(&queue));
        let present = self.present.clone();
        Ok(Follower { queue, present })
    }

    /// Tells that the machine ends, and waits until all who follow have left, but not for
    /// longer than `patience`.
    pub fn end(&self, status: u8, patience: Duration) {
        self.tell(MachineEvent::Ended { status });
        for queue in lock(&self.state).followers.drain(..) {
            if let Some(queue) = queue.upgrade() {
                queue.end();
            }
        }
        let count = lock(&self.present.count);
        let changed = &self.present.changed;
        // Whoever has not left by then misses the end.
        drop(changed.wait_timeout_while(count, patience, |count| *count > 0));
    }
}

impl Queue {
    /// Whether it is to have further events.
    fn put(&self, number: u64, event: MachineEvent) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.is_cut_off = waiting.events.len() == CAPACITY;
        if !waiting.is_cut_off {
            waiting.events.push_back((number, event));
        }
        // Only a counter at its maximum refuses, and then it is readable.
        let _ = self.wake.write(1);
        !waiting.is_cut_off
    }

    /// No further events come.
    fn end(&self) {
        lock(&self.waiting).is_over = true;
        let _ = self.wake.write(1);
    }
}

impl Follower {
    /// The oldest event; never waits.
    pub fn next(&self) -> Next {
        let mut waiting = lock(&self.queue.waiting);
        if let Some((number, event)) = waiting.events.pop_front() {
            return Next::Event(number, event);
        }
        if waiting.is_cut_off {
            return Next::CutOff;
        }
        if waiting.is_over {
            return Next::End;
        }
        // Under the lock: an event from here on wakes again.
        let _ = self.queue.wake.read();
        Next::Nothing
    }
}

impl AsFd for Follower {
    fn as_fd(&self) -> BorrowedFd<'_> {
        borrow(&self.queue.wake)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        *lock(&self.present.count) -= 1;
        self.present.changed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_name_in_json() {
        let lost = MachineEvent::BackendLost {
            device: "blk0".into(),
            reason: "it hung up".into(),
        };
        let detached = MachineEvent::GdbDetached { tracing: true };
        for event in [lost, detached, MachineEvent::Reset] {
            let json = serde_json::to_value(&event).unwrap();
            assert_eq!(json["event"], event.name());
        }
    }

    #[test]
    fn each_follower_gets_all_from_when_it_came() {
        let events = MachineEvents::default();
        events.tell(MachineEvent::Paused);
        let first = events.follow().unwrap();
        events.tell(MachineEvent::Resumed);
        let second = events.follow().unwrap();
        events.tell(MachineEvent::Reset);
        assert_eq!(first.next(), Next::Event(2, MachineEvent::Resumed));
        assert_eq!(first.next(), Next::Event(3, MachineEvent::Reset));
        assert_eq!(first.next(), Next::Nothing);
        assert_eq!(second.next(), Next::Event(3, MachineEvent::Reset));
        drop(second);
        events.tell(MachineEvent::Paused);
        assert_eq!(lock(&events.state).followers.len(), 1);
    }

    #[test]
    fn the_end_is_told_and_waited_for() {
        let events = MachineEvents::default();
        let follower = events.follow().unwrap();
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| events.end(3, Duration::from_secs(60)));
            let next =
                || std::iter::repeat_with(|| follower.next()).find(|next| *next != Next::Nothing);
            assert_eq!(
                next(),
                Some(Next::Event(1, MachineEvent::Ended { status: 3 }))
            );
            assert_eq!(next(), Some(Next::End));
            assert!(!ending.is_finished());
            drop(follower);
        });
        // One that stays is not waited for without end.
        let _stays = events.follow().unwrap();
        events.end(0, Duration::ZERO);
    }

    #[test]
    fn so_many_follow_and_no_more() {
        let events = MachineEvents::default();
        let mut all: Vec<_> = (0..MAX_FOLLOWERS)
            .map(|_| events.follow().unwrap())
            .collect();
        assert!(matches!(events.follow(), Err(FollowError::TooMany)));
        all.pop();
        assert!(events.follow().is_ok());
    }

    #[test]
    fn a_slow_one_is_cut_off_behind_what_it_has_had() {
        let events = MachineEvents::default();
        let slow = events.follow().unwrap();
        for _ in 0..2 * CAPACITY {
            events.tell(MachineEvent::Reset);
        }
        assert_eq!(lock(&events.state).followers.len(), 0);
        for number in 1..=CAPACITY as u64 {
            assert_eq!(slow.next(), Next::Event(number, MachineEvent::Reset));
        }
        assert_eq!(slow.next(), Next::CutOff);
    }
}
