//! The choice of the page tables for a virtual address.
//!
//! Those of the vCPU decide. Under page-table isolation the tables of user mode map
//! next to nothing of the kernel, so that an address in the kernel's half which the
//! vCPU does not map is looked up in the kernel's own tables: these map all of it,
//! and gdb sees the same kernel whatever a vCPU runs.

use super::guest::Guest;
use crate::address::{VcpuId, VirtAddr};
use crate::breakpoints::Rings;
use crate::machine::AddressError;
use crate::paging::{AddressSpace, Translation};

impl Guest<'_> {
    /// Where `addr` leads for a stopped vCPU.
    ///
    /// # Errors
    /// It leads nowhere; why the vCPU's own tables say so.
    pub(crate) fn translate(
        &self,
        vcpu: VcpuId,
        addr: VirtAddr,
    ) -> Result<Translation, AddressError> {
        self.machine.translate(vcpu, addr).or_else(|error| {
            let by_kernel = self.translate_by_kernel(addr);
            by_kernel.map(|(_, found)| found).ok_or(error)
        })
    }

    /// Where `addr` leads in the kernel's own page tables, which come with it, if it
    /// is in the kernel's half and Linux runs.
    pub(crate) fn translate_by_kernel(
        &self,
        addr: VirtAddr,
    ) -> Option<(AddressSpace, Translation)> {
        if Rings::accessing(addr) != Rings::Kernel {
            return None;
        }
        let kernel = self.linux.kernel(&self.machine).ok()?;
        let space = kernel.space(&self.machine);
        let read = |at, buf: &mut [u8]| self.machine.read_physical(at, buf);
        Some((space, space.translate(addr, read).ok()?))
    }

    /// Where `addr` leads when gdb does not say for which vCPU: for `focus`, the one it
    /// looks at, or, in the kernel's half, which all share, for any that has it mapped.
    pub(super) fn translate_for_any(
        &self,
        focus: VcpuId,
        addr: VirtAddr,
    ) -> Result<Translation, AddressError> {
        let looked_at = self.translate(focus, addr);
        if looked_at.is_ok() || Rings::accessing(addr) != Rings::Kernel {
            return looked_at;
        }
        let on = |vcpu| self.machine.translate(vcpu, addr).ok();
        let other = self.machine.vcpus().find_map(on);
        other.map_or(looked_at, Ok)
    }
}

#[cfg(test)]
#[path = "translate_test.rs"]
mod tests;
