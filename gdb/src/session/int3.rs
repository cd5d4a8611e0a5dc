//! Int3s that a vCPU meets and that are not for gdb.
//!
//! One kind is the guest's own: the guest gets the exception that it asked for.
//! The other is gdb's, but for another virtual address that the same page is
//! mapped at: the vCPU steps past it as if it were not there.

use super::Session;
use super::resume::Action;
use crate::arch::BREAKPOINT;
use crate::target::{Result, VcpuId};

/// What a vCPU that stopped for an int3 has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// A breakpoint that gdb planted for this address.
    Ours,
    Foreign(Unserved),
    /// Nobody can tell any more.
    Nothing,
}

/// A vCPU at an int3 that is not for gdb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unserved {
    /// Where it was then. Once it is elsewhere this is void.
    rip: u64,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// gdb's, for another virtual address.
    Alias,
    Guest,
    /// The guest's, beneath one of gdb's that was lifted.
    Beneath,
}

impl Session<'_> {
    /// Looks at what is at the RIP of a vCPU that stopped for an int3; `lifted`
    /// when gdb's breakpoint there had been taken out of its way.
    pub(super) fn met_int3(&self, vcpu: VcpuId, lifted: bool) -> Met {
        let Some(rip) = self.rip(vcpu) else {
            return Met::Nothing;
        };
        let kind = match self.int3_at_rip(vcpu) {
            _ if lifted => Kind::Beneath,
            None => return Met::Ours,
            Some(kind) => kind,
        };
        Met::Foreign(Unserved { rip, kind })
    }

    /// Whose int3 is at RIP, going by what gdb has planted; `None` for gdb's own.
    fn int3_at_rip(&self, vcpu: VcpuId) -> Option<Kind> {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return Some(Kind::Guest);
        };
        let addr = registers.linear_rip();
        let Ok(translation) = self.translate(vcpu, addr) else {
            return Some(Kind::Guest);
        };
        let planted = &self.breakpoints.planted;
        if planted.is_held_by(translation.phys, addr) {
            None
        } else if planted.contains(translation.phys) {
            Some(Kind::Alias)
        } else {
            Some(Kind::Guest)
        }
    }

    /// Sends the vCPUs that go on and are at an alias on their way past it.
    pub(super) fn leave_aliases(&mut self) {
        for vcpu in self.machine.vcpus() {
            let at_alias = self.unserved_kind(vcpu) == Some(Kind::Alias)
                && self.int3_at_rip(vcpu) == Some(Kind::Alias);
            if let Some(run) = self.run.as_mut().filter(|_| at_alias)
                && run.actions[vcpu.0] != Action::Hold
            {
                run.leaving.insert(vcpu);
            }
        }
    }

    /// Gives the vCPUs that go on their own int3s. To be called just before they
    /// do: between the two gdb must not get to change anything.
    pub(super) fn inject_int3s(&mut self) -> Result<()> {
        for vcpu in self.machine.vcpus() {
            let Some(run) = &self.run else {
                return Ok(());
            };
            if run.actions[vcpu.0] == Action::Hold {
                continue;
            }
            let own = match self.unserved_kind(vcpu) {
                Some(Kind::Guest) => self.int3_at_rip(vcpu) == Some(Kind::Guest),
                Some(Kind::Beneath) => true,
                Some(Kind::Alias) | None => false,
            };
            self.unserved[vcpu.0] = None;
            if own && self.guest_has_int3(vcpu) {
                self.machine.inject_int3(vcpu)?;
            }
        }
        Ok(())
    }

    fn unserved_kind(&self, vcpu: VcpuId) -> Option<Kind> {
        let unserved = self.unserved[vcpu.0]?;
        (self.rip(vcpu) == Some(unserved.rip)).then_some(unserved.kind)
    }

    /// Whether the code at RIP, without what gdb planted, is an int3.
    fn guest_has_int3(&self, vcpu: VcpuId) -> bool {
        let Ok(registers) = self.machine.registers(vcpu) else {
            return false;
        };
        let mut byte = [0];
        self.read_virtual(vcpu, registers.linear_rip(), &mut byte) == 1 && byte[0] == BREAKPOINT
    }
}
