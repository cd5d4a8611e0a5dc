//! At which privilege level the code or data at an address is used.

use crate::paging::Rights;
use crate::target::{HostTraps, Int3, Traps, VirtAddr};

/// Who may execute or access an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rings {
    Kernel,
    User,
    Either,
}

impl Rings {
    /// Who executes what is at `addr`: `rights` are those of its page, if it is
    /// mapped, and `smep` tells that ring 0 does not execute user pages.
    pub fn executing(addr: VirtAddr, rights: Option<Rights>, smep: bool) -> Self {
        match rights {
            Some(rights) if !rights.user => Rings::Kernel,
            Some(_) if smep => Rings::User,
            Some(_) => Rings::Either,
            None => Self::accessing(addr),
        }
    }

    /// Who accesses data at `addr`: by convention the kernel owns the upper half
    /// of the address space, and it may access all of the lower one.
    pub fn accessing(addr: VirtAddr) -> Self {
        if addr.0 >> 63 == 1 {
            Rings::Kernel
        } else {
            Rings::Either
        }
    }

    /// Whether an int3 traps wherever it may be executed: one that reaches the
    /// guest would harm it.
    pub fn all_trap_int3(self, traps: &HostTraps) -> bool {
        self.all(traps, |ring| ring.int3 == Int3::Trapped)
    }

    /// Whether a slot may fire at all. One that does not fire harms nobody.
    pub fn any_traps(self, traps: &HostTraps, facility: impl Fn(&Traps) -> bool) -> bool {
        !self.all(traps, |ring| !facility(ring))
    }

    /// Which ring alone can make a slot fire, where both should.
    pub fn only(self, traps: &HostTraps, facility: impl Fn(&Traps) -> bool) -> Option<Self> {
        match (facility(&traps.ring0), facility(&traps.ring3)) {
            (true, false) if self == Rings::Either => Some(Rings::Kernel),
            (false, true) if self == Rings::Either => Some(Rings::User),
            _ => None,
        }
    }

    fn all(self, traps: &HostTraps, holds: impl Fn(&Traps) -> bool) -> bool {
        match self {
            Rings::Kernel => holds(&traps.ring0),
            Rings::User => holds(&traps.ring3),
            Rings::Either => holds(&traps.ring0) && holds(&traps.ring3),
        }
    }

    /// For messages.
    pub fn name(self) -> &'static str {
        match self {
            Rings::Kernel => "ring 0",
            Rings::User => "ring 3",
            Rings::Either => "ring 0 or 3",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: VirtAddr = VirtAddr(0xffff_ffff_8100_0000);
    const LOW: VirtAddr = VirtAddr(0x40_0000);

    fn page(user: bool) -> Option<Rights> {
        Some(Rights {
            write: true,
            user,
            execute: true,
        })
    }

    /// As the host kind without nested virtualisation reports itself.
    fn pvm() -> HostTraps {
        let ring0 = Traps {
            step: true,
            int3: Int3::Trapped,
            hw_breakpoint: true,
            watchpoint: false,
        };
        let ring3 = Traps {
            step: false,
            int3: Int3::GoesToGuest,
            hw_breakpoint: false,
            watchpoint: false,
        };
        HostTraps { ring0, ring3 }
    }

    #[test]
    fn the_page_decides_and_without_one_the_half() {
        assert_eq!(Rings::executing(LOW, page(false), false), Rings::Kernel);
        assert_eq!(Rings::executing(LOW, page(true), true), Rings::User);
        assert_eq!(Rings::executing(LOW, page(true), false), Rings::Either);
        assert_eq!(Rings::executing(LOW, None, true), Rings::Either);
        assert_eq!(Rings::executing(KERNEL, None, true), Rings::Kernel);
    }

    #[test]
    fn int3_must_trap_everywhere_and_a_slot_somewhere() {
        let traps = pvm();
        assert!(Rings::Kernel.all_trap_int3(&traps));
        assert!(!Rings::Either.all_trap_int3(&traps));
        assert!(!Rings::User.all_trap_int3(&traps));
        assert!(Rings::Either.any_traps(&traps, |ring| ring.hw_breakpoint));
        assert!(!Rings::User.any_traps(&traps, |ring| ring.hw_breakpoint));
        assert!(!Rings::Either.any_traps(&traps, |ring| ring.watchpoint));
        let only = |rings: Rings| rings.only(&traps, |ring| ring.hw_breakpoint);
        assert_eq!(only(Rings::Either), Some(Rings::Kernel));
        assert_eq!(only(Rings::Kernel), None);
    }
}
