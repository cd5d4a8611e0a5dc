//! How gdb lets the guest go on.

use std::convert::Infallible;
use std::ops::Range;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};

use super::Session;
use crate::target::Resume;

/// What gdb wants of one vCPU until the next stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
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
pub(super) struct Request {
    actions: Vec<(Tid, Action)>,
    /// Threads without an action stay stopped.
    locked: bool,
}

impl Session<'_> {
    /// The requested action of each vCPU; `None` if a thread does not exist.
    fn requested(&self) -> Option<Vec<Action>> {
        let default = if self.request.locked {
            Action::Hold
        } else {
            Action::Continue
        };
        let mut actions = vec![default; self.machine.vcpu_count()];
        // The leftmost action that names a thread counts (gdb manual, "vCont").
        for (tid, action) in self.request.actions.iter().rev() {
            actions[self.vcpu(*tid)?.0] = action.clone();
        }
        Some(actions)
    }

    fn request(&mut self, tid: Tid, action: Action) {
        self.request.actions.push((tid, action));
    }
}

impl MultiThreadResume for Session<'_> {
    /// Whatever keeps the guest from going on becomes a stop with a notice. A
    /// client that resumes a running guest is ignored.
    fn resume(&mut self) -> Result<(), Infallible> {
        if self.is_running() {
            return Ok(());
        }
        match self.requested() {
            Some(actions) => self.start(actions),
            None => self.refuse(
                "the guest cannot be resumed: gdb asked for a vCPU that does not exist".to_owned(),
            ),
        }
        Ok(())
    }

    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.request = Request::default();
        Ok(())
    }

    /// A vCPU takes no signals: gdb passes on the one it was shown (`SIGINT`,
    /// `SIGABRT`), which is our own invention.
    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.request(tid, Action::Continue);
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }

    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }

    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl MultiThreadSingleStep for Session<'_> {
    fn set_resume_action_step(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.request(tid, Action::Step);
        Ok(())
    }
}

impl MultiThreadRangeStepping for Session<'_> {
    fn set_resume_action_range_step(
        &mut self,
        tid: Tid,
        start: u64,
        end: u64,
    ) -> Result<(), Infallible> {
        self.request(tid, Action::Range(start..end));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Session<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.request.locked = true;
        Ok(())
    }
}
