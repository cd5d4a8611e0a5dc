//! vCPUs that step behind a tracepoint, and collect at each step.
//!
//! The first step leaves the tracepoint, while all others wait. After it the vCPU
//! steps beside those that run, as for gdb's `stepi`: it may be waiting for one of
//! them. A step is counted where it ends, exceptions that came into it aside.

use host_io::errors::chain;

use super::Session;
use super::view::View;
use crate::address::VcpuId;
use crate::arch::Registers;
use crate::target::Resume;
use crate::trace::{Hit, Status, Trace};

impl Session<'_> {
    /// Has the trace collect of a vCPU, which may be the end of it.
    pub(super) fn collect(
        &mut self,
        vcpu: VcpuId,
        registers: &Registers,
        act: impl FnOnce(&mut Trace, &Hit<'_>),
    ) {
        let view = View {
            guest: &self.guest,
            vcpu,
            registers,
            known: self.trace_dialog.known(),
        };
        let hit = Hit {
            vcpu,
            registers,
            view: &view,
        };
        act(&mut self.trace, &hit);
        if self.trace.status != Status::Running {
            self.end_trace(self.trace.status.clone());
        }
    }

    /// `vcpu` has stepped over an instruction.
    pub(super) fn count_step(&mut self, vcpu: VcpuId) {
        if self.trace.is_stepping(vcpu)
            && let Ok(registers) = self.guest.machine.registers(vcpu)
        {
            self.collect(vcpu, &registers, Trace::stepped);
        }
    }

    /// `vcpu` has stopped for something else than the end of its step, which may
    /// have ended all the same.
    pub(super) fn count_step_that_did_more(&mut self, vcpu: VcpuId) {
        if self.trace.is_stepping(vcpu) && self.has_left_origin(vcpu) {
            self.count_step(vcpu);
        }
    }

    /// Makes those of the resuming vCPUs step that a trace steps.
    pub(super) fn step_traced(&mut self, actions: &mut [Resume]) {
        for vcpu in self.guest.machine.vcpus() {
            if actions[vcpu.0] != Resume::Continue || !self.trace.is_stepping(vcpu) {
                continue;
            }
            match self.guest.check_step(vcpu) {
                Ok(()) => actions[vcpu.0] = Resume::Step,
                Err(error) => {
                    self.notice(format!(
                        "what follows the tracepoint is not traced to its end: {}",
                        chain(&error)
                    ));
                    self.trace.give_up_steps(vcpu);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "while_stepping_test.rs"]
mod tests;
