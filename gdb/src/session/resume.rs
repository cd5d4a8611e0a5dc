//! How gdb resumes the guest.

use std::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::multithread::{
    MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep,
    MultiThreadSingleStepOps,
};

use super::Session;
use super::state::{Action, Request};

impl MultiThreadResume for Session<'_> {
    /// An error that keeps the guest from resuming becomes a stop with a
    /// notice. A client that resumes a running guest is ignored.
    fn resume(&mut self) -> Result<(), Infallible> {
        if self.is_running() {
            return Ok(());
        }
        match self.request.actions(self.guest.machine.vcpu_count()) {
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
    /// `SIGABRT`), which this stub made up.
    fn set_resume_action_continue(
        &mut self,
        tid: Tid,
        _signal: Option<Signal>,
    ) -> Result<(), Infallible> {
        self.request.add(tid, Action::Continue);
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
        self.request.add(tid, Action::Step);
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
        self.request.add(tid, Action::Range(start..end));
        Ok(())
    }
}

impl MultiThreadSchedulerLocking for Session<'_> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.request.lock_others();
        Ok(())
    }
}
