//! The steps of a run: see [`Steps`](super::state::Steps).

use super::Session;
use crate::address::VcpuId;
use crate::target::Resume;

impl Session<'_> {
    /// Remembers where `vcpu` is, whose step begins.
    pub(super) fn begin_step(&mut self, vcpu: VcpuId) {
        if let Some(run) = &mut self.run
            && let Ok(registers) = self.guest.machine.registers(vcpu)
        {
            run.steps.begin(vcpu, &registers);
        }
    }

    /// How `vcpu` steps beside the others: it finishes a step that was interrupted, or
    /// begins one.
    pub(super) fn step_beside(&mut self, vcpu: VcpuId) -> Resume {
        if self
            .run
            .as_ref()
            .is_some_and(|run| run.steps.has_begun(vcpu))
        {
            return Resume::FinishStep;
        }
        self.begin_step(vcpu);
        Resume::Step
    }

    /// Has a vCPU whose lone step was interrupted take it up again, unless it is in a
    /// handler; `opened` if it needs the protected pages open.
    pub(super) fn retry_alone(&mut self, vcpu: VcpuId, opened: bool) {
        let (Some(run), Ok(registers)) = (&mut self.run, self.guest.machine.registers(vcpu)) else {
            return;
        };
        if run.steps.give_up_in_handler(vcpu, &registers) {
            return;
        }
        match opened {
            true => run.leave_opened(vcpu),
            false => run.leave(vcpu),
        }
    }

    /// Whether `vcpu` has come back from a handler to the instruction of its lone step,
    /// which is tried again now. The breakpoint there it has left before, and a
    /// tracepoint has collected.
    pub(super) fn is_back(&mut self, vcpu: VcpuId) -> bool {
        let (Some(run), Ok(registers)) = (&mut self.run, self.guest.machine.registers(vcpu)) else {
            return false;
        };
        let is_back = run.steps.is_back(vcpu, &registers);
        if is_back {
            self.vcpus[vcpu].mark_collected(registers.rip);
        }
        is_back
    }

    /// Whether a vCPU that stopped for something else has done its step all the same.
    pub(super) fn has_left_origin(&self, vcpu: VcpuId) -> bool {
        match (&self.run, self.guest.machine.registers(vcpu)) {
            (Some(run), Ok(registers)) => run.steps.has_left(vcpu, &registers),
            _ => false,
        }
    }

    /// Whether a step is in progress that may have to be given the time it takes.
    pub(super) fn has_pending_step(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.steps.are_pending())
    }

    /// Notes which steps are in a handler. The guest is stopped.
    pub(super) fn note_handlers(&mut self) {
        if let Some(run) = &mut self.run {
            run.steps.note_handlers(|vcpu| self.guest.rip(vcpu));
        }
    }
}
