//! Single steps that a pause interrupts.
//!
//! A step is done when the instruction is ([`crate::arch::step`]): an exception that
//! comes into it is run through by the target. Only a pause, for another vCPU's sake or
//! because the step takes long, shows a vCPU in the handler. It resumes its step then.
//! One that was leaving a breakpoint alone has to let the others run, which the
//! handler may wait for; it meets the breakpoint again when it comes back, and is let
//! past without that being a hit.

use std::collections::BTreeMap;

use crate::address::VcpuId;
use crate::arch::Registers;

/// Where a vCPU was when its step began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
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

/// The steps of one run.
#[derive(Debug, Default)]
pub(in crate::session) struct Steps {
    /// vCPUs whose step has begun and not ended.
    origins: BTreeMap<VcpuId, Origin>,
    /// Those whose lone step was given up in the handler of an exception.
    handling: BTreeMap<VcpuId, Origin>,
}

impl Steps {
    /// The step of `vcpu` begins where it is.
    pub fn begin(&mut self, vcpu: VcpuId, registers: &Registers) {
        self.origins.insert(vcpu, Origin::of(registers));
    }

    pub fn has_begun(&self, vcpu: VcpuId) -> bool {
        self.origins.contains_key(&vcpu)
    }

    /// `vcpu` has stopped by itself.
    pub fn end(&mut self, vcpu: VcpuId) {
        self.origins.remove(&vcpu);
    }

    /// Gives up the lone step of a vCPU that is in a handler; whether it is.
    pub fn give_up_in_handler(&mut self, vcpu: VcpuId, registers: &Registers) -> bool {
        let origin = self.origins.get(&vcpu);
        let Some(origin) = origin.filter(|origin| !origin.is_at(registers)) else {
            return false;
        };
        self.handling.insert(vcpu, *origin);
        true
    }

    /// Whether `vcpu` has come back from a handler to the instruction of its lone step,
    /// which is tried again now.
    pub fn is_back(&mut self, vcpu: VcpuId, registers: &Registers) -> bool {
        let origin = self.handling.get(&vcpu);
        let is_back = origin.is_some_and(|origin| origin.is_at(registers));
        if is_back {
            self.handling.remove(&vcpu);
        }
        is_back
    }

    /// Whether a vCPU that stopped for something else has done its step all the same.
    pub fn has_left(&self, vcpu: VcpuId, registers: &Registers) -> bool {
        let origin = self.origins.get(&vcpu);
        origin.is_some_and(|origin| origin.is_left(registers))
    }

    /// Whether a step is in progress that may have to be given the time it takes.
    pub fn are_pending(&self) -> bool {
        self.origins.values().any(|origin| !origin.is_away)
    }

    /// Notes which steps are in a handler, by where the vCPUs are.
    pub fn note_handlers(&mut self, rip: impl Fn(VcpuId) -> Option<u64>) {
        for (vcpu, origin) in &mut self.origins {
            if let Some(rip) = rip(*vcpu) {
                origin.is_away = rip != origin.rip;
            }
        }
    }
}
