//! Single steps that a pause interrupts.
//!
//! A step is done when the instruction is ([`crate::arch::step`]): an exception that
//! comes into it is run through by the target. Only a pause, for another vCPU's sake or
//! because the step takes long, shows a vCPU in the handler. It goes on with its step
//! then. One that was leaving a breakpoint alone has to let the others run, which the
//! handler may wait for; it meets the breakpoint again when it comes back, and is let
//! past without that being a hit.

use super::Session;
use super::run::Run;
use crate::arch::Registers;
use crate::target::{Resume, VcpuId};

/// Where a vCPU was when its step began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    rip: u64,
    rsp: u64,
    cs: u16,
    /// It has been seen in a handler, where it may take the time that it needs.
    is_away: bool,
}

impl Origin {
    fn of(registers: &Registers) -> Self {
        Self {
            rip: registers.rip,
            rsp: registers.rsp(),
            cs: registers.cs.selector,
            is_away: false,
        }
    }

    fn is_at(&self, registers: &Registers) -> bool {
        (registers.rip, registers.rsp(), registers.cs.selector) == (self.rip, self.rsp, self.cs)
    }

    /// Whether a vCPU is behind the instruction and not in a handler, whose frame is
    /// larger than what an instruction pushes.
    fn is_left(&self, registers: &Registers) -> bool {
        const MOST_PUSHED: u64 = 16;
        registers.rip != self.rip
            && registers.cs.selector == self.cs
            && registers.rsp().abs_diff(self.rsp) <= MOST_PUSHED
    }
}

impl Session<'_> {
    /// Remembers where `vcpu` is, whose step begins.
    pub(super) fn begin_step(&mut self, vcpu: VcpuId) {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return;
        };
        if let Some(run) = &mut self.run {
            run.origins.insert(vcpu, Origin::of(&registers));
        }
    }

    /// How `vcpu` steps beside the others: it finishes a step that was interrupted, or
    /// begins one.
    pub(super) fn step_beside(&mut self, vcpu: VcpuId) -> Resume {
        let began = |run: &Run| run.origins.contains_key(&vcpu);
        if self.run.as_ref().is_some_and(began) {
            return Resume::FinishStep;
        }
        self.begin_step(vcpu);
        Resume::Step
    }

    /// Has a vCPU whose lone step was interrupted take it up again, unless it is in a
    /// handler; whether it does.
    pub(super) fn retry_alone(&mut self, vcpu: VcpuId) -> bool {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return false;
        };
        let Some(run) = &mut self.run else {
            return false;
        };
        match run.origins.get(&vcpu) {
            Some(origin) if !origin.is_at(&registers) => {
                run.handling.insert(vcpu, *origin);
                false
            }
            _ => run.leaving.insert(vcpu),
        }
    }

    /// Whether `vcpu` has come back from a handler to the instruction of its lone step,
    /// which is tried again now. The breakpoint there it has left before, and a
    /// tracepoint has collected.
    pub(super) fn is_back(&mut self, vcpu: VcpuId) -> bool {
        let (Some(run), Ok(registers)) = (&mut self.run, self.machine.registers(vcpu)) else {
            return false;
        };
        let back = |origin: &Origin| origin.is_at(&registers);
        if !run.handling.get(&vcpu).is_some_and(back) {
            return false;
        }
        run.handling.remove(&vcpu);
        self.collected[vcpu.0] = Some(registers.rip);
        true
    }

    /// Whether a vCPU that stopped for something else has done its step all the same.
    pub(super) fn has_left_origin(&self, vcpu: VcpuId) -> bool {
        let origin = self.run.as_ref().and_then(|run| run.origins.get(&vcpu));
        match (origin, self.machine.registers(vcpu)) {
            (Some(origin), Ok(registers)) => origin.is_left(&registers),
            _ => false,
        }
    }

    /// Whether a step is in progress that may have to be let take its time.
    pub(super) fn has_pending_step(&self) -> bool {
        let pending = |run: &Run| run.origins.values().any(|origin| !origin.is_away);
        self.run.as_ref().is_some_and(pending)
    }

    /// Notes which steps are in a handler. The guest is stopped.
    pub(super) fn note_handlers(&mut self) {
        let Some(run) = &mut self.run else {
            return;
        };
        for (vcpu, origin) in &mut run.origins {
            if let Ok(registers) = self.machine.registers(*vcpu) {
                origin.is_away = registers.rip != origin.rip;
            }
        }
    }
}
