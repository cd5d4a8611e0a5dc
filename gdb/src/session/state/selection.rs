//! gdb's selection in the stopped guest.

use std::cell::Cell;

use crate::address::VcpuId;

/// The vCPU that gdb and its user mean, and by which addresses they read memory.
#[derive(Debug)]
pub(crate) struct Selection {
    /// The vCPU that stopped last.
    focus: VcpuId,
    /// The vCPU whose state gdb last asked for since the guest stopped: the one
    /// that the user has selected, for `thread N` reads where it stands.
    asked_for: Cell<Option<VcpuId>>,
    /// gdb's memory accesses are by physical address, until the guest resumes:
    /// after that gdb would take physical memory for the stack.
    physical: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            focus: VcpuId(0),
            asked_for: Cell::new(None),
            physical: false,
        }
    }
}

impl Selection {
    pub fn focus(&self) -> VcpuId {
        self.focus
    }

    /// The vCPU that the user most likely means, where nobody says which.
    pub fn looked_at(&self) -> VcpuId {
        self.asked_for.get().unwrap_or(self.focus)
    }

    pub fn is_physical(&self) -> bool {
        self.physical
    }

    pub fn set_physical(&mut self, physical: bool) {
        self.physical = physical;
    }

    /// gdb asks for the state of `vcpu`.
    pub fn ask_for(&self, vcpu: VcpuId) {
        self.asked_for.set(Some(vcpu));
    }

    /// gdb is told of a stop of `vcpu`.
    pub fn on_stop(&mut self, vcpu: VcpuId) {
        self.focus = vcpu;
    }

    /// The guest resumes, or gdb leaves.
    pub fn clear(&mut self) {
        self.asked_for.set(None);
        self.physical = false;
    }
}
