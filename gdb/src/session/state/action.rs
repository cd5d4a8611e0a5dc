//! gdb's action for each vCPU.

use std::ops::Range;

use gdbstub::common::Tid;

use crate::target::Resume;

/// gdb's action for one vCPU until the next stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::session) enum Action {
    Continue,
    Step,
    /// Steps until the vCPU is outside these addresses.
    Range(Range<u64>),
    Hold,
}

impl Action {
    pub fn resume(&self) -> Resume {
        match self {
            Action::Continue => Resume::Continue,
            Action::Step | Action::Range(_) => Resume::Step,
            Action::Hold => Resume::Hold,
        }
    }
}

/// A `vCont` packet as gdbstub takes it apart.
#[derive(Debug, Default)]
pub(in crate::session) struct Request {
    actions: Vec<(Tid, Action)>,
    /// Threads without an action stay stopped.
    locked: bool,
}

impl Request {
    pub fn add(&mut self, tid: Tid, action: Action) {
        self.actions.push((tid, action));
    }

    pub fn lock_others(&mut self) {
        self.locked = true;
    }

    /// The requested action of each of `count` vCPUs; `None` if one is named that
    /// does not exist.
    pub fn actions(&self, count: usize) -> Option<Vec<Action>> {
        let default = if self.locked {
            Action::Hold
        } else {
            Action::Continue
        };
        let mut actions = vec![default; count];
        // The leftmost action that names a thread counts (gdb manual, "vCont").
        for (tid, action) in self.actions.iter().rev() {
            *actions.get_mut(tid.get() - 1)? = action.clone();
        }
        Some(actions)
    }
}
