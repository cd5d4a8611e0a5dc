//! The place of one device's process, which the device and the end of the program share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::child::{Child, Ended};

/// Where the process of one device is, if there is one.
#[derive(Default)]
pub struct Slot {
    child: Option<Child>,
    /// The program ends: nothing is started any more.
    closed: bool,
}

pub type SharedSlot = Arc<Mutex<Slot>>;

pub fn lock(slot: &SharedSlot) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Has nothing started any more, and returns the process that there is.
    pub fn close(&mut self) -> Option<Child> {
        self.closed = true;
        self.child.take()
    }

    pub fn child(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    pub fn take_child(&mut self) -> Option<Child> {
        self.child.take()
    }

    pub fn set_child(&mut self, child: Child) {
        self.child = Some(child);
    }

    /// How the process has ended, if it does so in time. It is forgotten then.
    pub fn ended(&mut self, within: Duration) -> Option<Ended> {
        self.child
            .take_if(|child| child.ends_within(within))?
            .reap()
    }
}
