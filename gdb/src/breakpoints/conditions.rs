//! Conditions of breakpoints that are evaluated here, without a round trip to gdb.

use std::collections::BTreeMap;
use std::fmt;

use crate::arch::Registers;
use crate::target::{VcpuId, VirtAddr};

/// The page table's address in CR3 (SDM volume 3, 2.5): the other bits are
/// flags and the PCID, which change with the same address space.
const CR3_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// When the breakpoints at an address stop the guest. A part that is not set
/// does not matter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Condition {
    /// In this address space.
    pub cr3: Option<u64>,
    /// At this privilege level.
    pub cpl: Option<u8>,
    pub vcpu: Option<VcpuId>,
    /// From this hit on, counting those that meet the rest.
    pub hits: u64,
}

impl Condition {
    fn holds(&self, vcpu: VcpuId, registers: &Registers) -> bool {
        let space = |cr3: u64| (cr3 ^ registers.cr3) & CR3_ADDRESS == 0;
        self.cr3.is_none_or(space)
            && self.cpl.is_none_or(|cpl| cpl == registers.cpl())
            && self.vcpu.is_none_or(|other| other == vcpu)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.cr3.map(|cr3| format!("cr3={cr3:#x}")),
            self.cpl.map(|cpl| format!("cpl={cpl}")),
            self.vcpu.map(|vcpu| format!("vcpu={}", vcpu.0)),
            (self.hits > 1).then(|| format!("hits={}", self.hits)),
        ];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// A condition and its results so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditional {
    pub condition: Condition,
    /// Hits that met all but the count.
    pub met: u64,
    /// Hits that did not.
    pub unmet: u64,
}

/// The conditions by address.
#[derive(Debug, Default)]
pub(crate) struct Conditions(BTreeMap<VirtAddr, Conditional>);

impl Conditions {
    /// Replaces the condition at `addr`, and counts from zero again.
    pub fn set(&mut self, addr: VirtAddr, condition: Condition) {
        let conditional = Conditional {
            condition,
            ..Conditional::default()
        };
        self.0.insert(addr, conditional);
    }

    /// Whether there was one.
    pub fn remove(&mut self, addr: VirtAddr) -> bool {
        self.0.remove(&addr).is_some()
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn list(&self) -> impl Iterator<Item = (VirtAddr, &Conditional)> {
        self.0
            .iter()
            .map(|(addr, conditional)| (*addr, conditional))
    }

    /// Whether the hit of a breakpoint at RIP stops the guest. Counts it.
    pub fn stops(&mut self, vcpu: VcpuId, registers: &Registers) -> bool {
        let Some(conditional) = self.0.get_mut(&registers.linear_rip()) else {
            return true;
        };
        if !conditional.condition.holds(vcpu, registers) {
            conditional.unmet += 1;
            return false;
        }
        conditional.met += 1;
        conditional.met >= conditional.condition.hits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDR: u64 = 0x1000;

    fn at(rip: u64, cr3: u64, cpl: u16) -> Registers {
        let mut registers = Registers {
            rip,
            cr3,
            cr0: crate::arch::cr0::PE,
            ..Registers::default()
        };
        registers.cs.selector = cpl;
        registers
    }

    fn conditions(condition: Condition) -> Conditions {
        let mut conditions = Conditions::default();
        conditions.set(VirtAddr(ADDR), condition);
        conditions
    }

    #[test]
    fn every_part_must_hold() {
        let mut conditions = conditions(Condition {
            cr3: Some(0x8000_0000_1234_5001),
            cpl: Some(3),
            vcpu: Some(VcpuId(1)),
            hits: 0,
        });
        assert!(
            conditions.stops(VcpuId(1), &at(ADDR, 0x1234_5fff, 3)),
            "PCID"
        );
        for (vcpu, registers) in [
            (0, at(ADDR, 0x1234_5000, 3)),
            (1, at(ADDR, 0x1234_4000, 3)),
            (1, at(ADDR, 0x1234_5000, 0)),
        ] {
            assert!(!conditions.stops(VcpuId(vcpu), &registers));
        }
        let (_, counted) = conditions.list().next().unwrap();
        assert_eq!((counted.met, counted.unmet), (1, 3));
        let text = "cr3=0x8000000012345001 cpl=3 vcpu=1";
        assert_eq!(counted.condition.to_string(), text);
    }

    #[test]
    fn hits_count_from_the_last_change() {
        let third = Condition {
            hits: 3,
            ..Condition::default()
        };
        let mut conditions = conditions(third);
        let hits = |conditions: &mut Conditions| {
            [(); 4].map(|()| conditions.stops(VcpuId(0), &at(ADDR, 0, 0)))
        };
        assert_eq!(hits(&mut conditions), [false, false, true, true]);
        conditions.set(VirtAddr(ADDR), third);
        assert_eq!(hits(&mut conditions), [false, false, true, true]);
        assert!(conditions.remove(VirtAddr(ADDR)) && !conditions.remove(VirtAddr(ADDR)));
        assert_eq!(hits(&mut conditions), [true; 4]);
    }

    #[test]
    fn other_addresses_have_no_condition() {
        let never = Condition {
            cpl: Some(3),
            ..Condition::default()
        };
        assert!(conditions(never).stops(VcpuId(0), &at(ADDR + 1, 0, 0)));
    }
}
