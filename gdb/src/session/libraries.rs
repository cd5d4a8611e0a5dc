//! Linux's modules, which gdb takes for libraries.
//!
//! gdb reads the list when it attaches, and again at a stop that says so (`library`),
//! from which it resumes by itself. There is such a stop where Linux is about to
//! initialise a module, by a breakpoint of our own: gdb can have breakpoints in the
//! module's first function then. Whatever else has changed, gdb hears of it at a
//! breakpoint, and when it resumes the guest: what it plants then is to be where the
//! module is.
//!
//! A breakpoint that was hit is not hit a second time for that: gdb hears of the first
//! hit when it resumes, if it still has a breakpoint there.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::libraries::Libraries;

use super::Session;
use super::state::Action;
use super::stop::{Reason, Stop};
use crate::address::{VcpuId, VirtAddr};
use crate::breakpoints::{Kind, Owner};
use crate::linux::copy_from;

impl Libraries for Session<'_> {
    fn get_libraries(
        &self,
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if self.is_running() {
            return Err(super::base::busy());
        }
        let linux = &self.guest.linux;
        let list = linux.library_list(&self.guest.machine, offset);
        let length = length.min(buf.len());
        Ok(copy_from(&list, offset, &mut buf[..length]))
    }
}

impl Session<'_> {
    /// Instead of a run: whether gdb has to read the list first. Nothing has run then, and
    /// what was pending still is.
    pub(super) fn tell_of_modules(&mut self, actions: &[Action]) -> bool {
        // A step ends soon enough, and gdb has few breakpoints in the guest meanwhile.
        let runs = actions.contains(&Action::Continue);
        let steps = |action: &Action| !matches!(action, Action::Continue | Action::Hold);
        if !runs || actions.iter().any(steps) || !self.have_modules_changed() {
            return false;
        }
        let is_told = |vcpu: &VcpuId| actions[vcpu.0] == Action::Continue;
        let focus = Some(self.selection.focus()).filter(is_told);
        let vcpu = focus.or_else(|| self.guest.machine.vcpus().find(is_told));
        self.stop = vcpu.map(|vcpu| Stop::At(vcpu, Reason::Library));
        self.announce_modules();
        self.stop.is_some()
    }

    /// gdb hears that there are other modules. It takes its breakpoints in those that are
    /// gone for gone with them, and never removes them.
    pub(super) fn announce_modules(&mut self) {
        let linux = &self.guest.linux;
        let gone = linux.announce_modules(&self.guest.machine);
        let breakpoints = &self.guest.breakpoints;
        for place in breakpoints.all_of_gdb() {
            if gone.iter().any(|memory| memory.contains(&place.addr.0)) {
                self.remove_of_gdb(place);
            }
        }
    }

    /// Instead of a run: the breakpoint that a vCPU had hit when gdb was told of modules
    /// first.
    pub(super) fn take_hit(&mut self, actions: &[Action]) -> Option<Stop> {
        for vcpu in self.guest.machine.vcpus() {
            if actions[vcpu.0] == Action::Hold || !self.vcpus[vcpu].take_hit(self.guest.rip(vcpu)) {
                continue;
            }
            let Ok(registers) = self.guest.machine.registers(vcpu) else {
                continue;
            };
            let mut there = self.guest.breakpoints.of_gdb(registers.linear_rip());
            if let Some(place) = there.next() {
                let reason = match place.kind {
                    Kind::Software => Reason::Software,
                    Kind::Hardware => Reason::Hardware,
                };
                return Some(Stop::At(vcpu, reason));
            }
        }
        None
    }

    /// Has the guest stop at the next module. Where there is no room for that gdb's own
    /// breakpoints go first.
    pub(super) fn watch_for_modules(&mut self) {
        let Some(addr) = self.module_event() else {
            return;
        };
        if let Err(error) = self.insert_software(addr, Owner::Modules) {
            tracing::debug!("gdb: modules are not noticed: {error}");
        }
    }

    /// Leaves its place to gdb's breakpoints.
    pub(super) fn unwatch_modules(&mut self) {
        let planted = self.guest.breakpoints.list();
        let planted = planted.filter(|(_, software)| software.modules);
        for addr in planted.map(|(addr, _)| addr).collect::<Vec<_>>() {
            self.remove_software(addr, Owner::Modules);
        }
    }

    /// Whether this is where Linux has a module to initialise.
    pub(super) fn is_module_event(&self, addr: VirtAddr) -> bool {
        let software = self.guest.breakpoints.software(addr);
        software.is_some_and(|software| software.modules)
    }

    fn module_event(&self) -> Option<VirtAddr> {
        let event = self.guest.linux.module_event(&self.guest.machine);
        event.filter(|_| self.console.is_attached()).map(VirtAddr)
    }

    /// Whether gdb has to hear of modules before it hears of anything else.
    pub(super) fn have_modules_changed(&self) -> bool {
        self.console.is_attached() && self.guest.linux.have_modules_changed(&self.guest.machine)
    }
}

#[cfg(test)]
#[path = "libraries_test.rs"]
mod tests;
