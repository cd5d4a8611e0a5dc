//! Addresses that gdb has cut in half.
//!
//! Under a description of 16 or 32 bits gdb sends only the part of an address that
//! such a target can have. A breakpoint at 0xffffffff81000000 comes as one at
//! 0x81000000, and would be waited for in vain. The original address cannot be told
//! for sure, but a cut is likely if nothing is at the address that came, and
//! something is at one with the same lower half.

use super::guest::Guest;
use crate::address::VirtAddr;
use crate::arch::Architecture;
use crate::paging::Mode;

/// It is not the address that the user has asked for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "with {} gdb has only the lower half of {whole:#x}; \"monitor architecture x86-64\" and then \
     \"unset tdesc filename\" give it the whole", .known.name()
)]
pub(super) struct Halved {
    whole: u64,
    /// The architecture that gdb takes the vCPUs for.
    known: Architecture,
}

impl Guest<'_> {
    /// Refuses an address that only makes sense as the lower half of another; `known` is
    /// the architecture that gdb takes the vCPUs for.
    pub(super) fn check_whole(&self, addr: VirtAddr, known: Architecture) -> Result<(), Halved> {
        if known == Architecture::X86_64 || self.is_paged_in(addr) {
            return Ok(());
        }
        match self
            .whole_in_file(addr)
            .or_else(|| self.whole_in_kernel(addr))
        {
            Some(whole) => Err(Halved { whole, known }),
            None => Ok(()),
        }
    }

    /// Whether a vCPU's page tables have something there. Without paging every
    /// address is as good as any.
    fn is_paged_in(&self, addr: VirtAddr) -> bool {
        self.machine.vcpus().any(|vcpu| {
            let space = self.machine.address_space(vcpu);
            space.is_ok_and(|space| space.mode != Mode::Off)
                && self.machine.translate(vcpu, addr).is_ok()
        })
    }

    /// An address above 4 GiB that the symbol file has something at.
    fn whole_in_file(&self, addr: VirtAddr) -> Option<u64> {
        let file = self.machine.symbols()?;
        file.above_4_gib(u32::try_from(addr.0).ok()?)
    }

    /// The address in the uppermost 2 GiB, where a 64-bit kernel is and all vCPUs
    /// share the mappings.
    fn whole_in_kernel(&self, addr: VirtAddr) -> Option<u64> {
        let whole = u32::try_from(addr.0).ok()? as i32 as i64 as u64;
        let mapped = |vcpu| self.translate(vcpu, VirtAddr(whole)).is_ok();
        (whole != addr.0 && self.machine.vcpus().any(mapped)).then_some(whole)
    }
}
