//! The guest as the debugger works on it.

use crate::address::VcpuId;
use crate::breakpoints::Breakpoints;
use crate::linux::Linux;
use crate::machine::Machine;
use crate::target::Target;

/// The machine, the breakpoints in it, and the facts about its kernel.
///
/// Everything that only looks at a stopped guest, or changes its memory, goes by this
/// and knows nothing of gdb.
pub(crate) struct Guest<'t> {
    pub machine: Machine<'t>,
    pub breakpoints: Breakpoints,
    pub linux: Linux,
}

impl<'t> Guest<'t> {
    pub fn new(target: &'t mut dyn Target) -> Self {
        let linux = Linux::new(target.symbols());
        Self {
            machine: Machine::new(target),
            breakpoints: Breakpoints::default(),
            linux,
        }
    }

    /// Where a stopped vCPU stands.
    pub fn rip(&self, vcpu: VcpuId) -> Option<u64> {
        Some(self.machine.registers(vcpu).ok()?.rip)
    }
}
