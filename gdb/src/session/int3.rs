//! Int3s that a vCPU hits and that are not for gdb.
//!
//! One kind is the guest's own: the guest gets the exception that it asked for.
//! The other is gdb's, but for another virtual address that the same page is
//! mapped at: the vCPU steps past it as if it were not there.

use super::Session;
use super::guest::Guest;
use super::state::{ForeignInt3, Int3Kind};
use crate::address::VcpuId;
use crate::arch::BREAKPOINT;
use crate::target::Result;

/// The owner of an int3 that a vCPU has stopped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// A breakpoint that gdb planted for this address.
    Ours,
    Foreign(ForeignInt3),
    /// Nobody can tell any more.
    Nothing,
}

impl Guest<'_> {
    /// Examines the RIP of a vCPU that stopped for an int3; `lifted` when gdb's
    /// breakpoint there had been taken out of its way.
    pub(super) fn met_int3(&self, vcpu: VcpuId, lifted: bool) -> Met {
        let Some(rip) = self.rip(vcpu) else {
            return Met::Nothing;
        };
        let kind = match self.int3_at_rip(vcpu) {
            _ if lifted => Int3Kind::Beneath,
            None => return Met::Ours,
            Some(kind) => kind,
        };
        Met::Foreign(ForeignInt3 { rip, kind })
    }

    /// Whose int3 is at RIP, by gdb's breakpoints; `None` for gdb's own.
    fn int3_at_rip(&self, vcpu: VcpuId) -> Option<Int3Kind> {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return Some(Int3Kind::Guest);
        };
        let addr = registers.linear_rip();
        let Ok(translation) = self.translate(vcpu, addr) else {
            return Some(Int3Kind::Guest);
        };
        let planted = &self.breakpoints.planted;
        if planted.is_held_by(translation.phys, addr) {
            None
        } else if planted.contains(translation.phys) {
            Some(Int3Kind::Alias)
        } else {
            Some(Int3Kind::Guest)
        }
    }

    /// Whether the code at RIP, without gdb's breakpoints, is an int3.
    fn has_own_int3(&self, vcpu: VcpuId) -> bool {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return false;
        };
        let mut byte = [0];
        self.read_virtual(vcpu, registers.linear_rip(), &mut byte) == 1 && byte[0] == BREAKPOINT
    }
}

impl Session<'_> {
    /// Sends the vCPUs that resume and are at an alias on their way past it.
    pub(super) fn leave_aliases(&mut self) {
        let Some(run) = &mut self.run else {
            return;
        };
        for vcpu in self.guest.machine.vcpus() {
            let noted = self.vcpus[vcpu].foreign_int3_at(self.guest.rip(vcpu));
            let at_alias = noted == Some(Int3Kind::Alias)
                && self.guest.int3_at_rip(vcpu) == Some(Int3Kind::Alias);
            if at_alias && !run.holds(vcpu) {
                run.leave(vcpu);
            }
        }
    }

    /// Gives the vCPUs that resume their own int3s. To be called just before they
    /// do: between the two gdb must not get to change anything.
    pub(super) fn inject_int3s(&mut self) -> Result<()> {
        let Some(run) = &self.run else {
            return Ok(());
        };
        for vcpu in self.guest.machine.vcpus() {
            if run.holds(vcpu) {
                continue;
            }
            let own = match self.vcpus[vcpu].foreign_int3_at(self.guest.rip(vcpu)) {
                Some(Int3Kind::Guest) => self.guest.int3_at_rip(vcpu) == Some(Int3Kind::Guest),
                Some(Int3Kind::Beneath) => true,
                Some(Int3Kind::Alias) | None => false,
            };
            self.vcpus[vcpu].forget_foreign_int3();
            if own && self.guest.has_own_int3(vcpu) {
                self.guest.machine.inject_int3(vcpu)?;
            }
        }
        Ok(())
    }
}
