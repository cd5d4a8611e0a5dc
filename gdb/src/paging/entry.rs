//! One entry on the way of a walk, in words.

use super::bit;
use super::mode::Mode;
use super::space::AddressSpace;
use crate::address::PhysAddr;

/// One entry that a walk has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// From 1 (the page table) to 5.
    pub level: u8,
    /// Which entry of its table.
    pub index: u64,
    /// Where it lies.
    pub at: PhysAddr,
    pub entry: u64,
}

/// The kind of the entry, as the processor takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    NotPresent,
    Table,
    /// A page of this size in bytes.
    Page(u64),
}

impl Step {
    /// The SDM's name of an entry of this level, for example `PDPTE`.
    pub fn name(&self) -> &'static str {
        match self.level {
            1 => "PTE",
            2 => "PDE",
            3 => "PDPTE",
            4 => "PML4E",
            _ => "PML5E",
        }
    }

    pub fn kind(&self, space: &AddressSpace) -> Kind {
        if self.entry & bit::PRESENT == 0 {
            Kind::NotPresent
        } else if space.is_leaf(self.level, self.entry) {
            Kind::Page(1 << space.mode.shift(self.level))
        } else {
            Kind::Table
        }
    }

    /// The flags that are set, by the SDM's names (volume 3, tables 5-4 to 5-20),
    /// separated by spaces. An entry that is not present has none: its other
    /// bits are the guest's own.
    pub fn flags(&self, space: &AddressSpace) -> String {
        let kind = self.kind(space);
        if kind == Kind::NotPresent {
            return String::new();
        }
        let is_page = matches!(kind, Kind::Page(_));
        let is_large = is_page && self.level > 1;
        let has_rights = space.mode.has_rights(self.level);
        let wide = !matches!(space.mode, Mode::Bits32 { .. });
        let flags = [
            ("P", true, bit::PRESENT),
            ("R/W", has_rights, bit::WRITE),
            ("U/S", has_rights, bit::USER),
            ("PWT", true, 1 << 3),
            ("PCD", true, 1 << 4),
            ("A", true, bit::ACCESSED),
            ("D", is_page, 1 << 6),
            ("PS", is_large, bit::PAGE_SIZE),
            ("PAT", is_page && !is_large, 1 << 7),
            ("G", is_page, bit::GLOBAL),
            ("PAT", is_large, 1 << 12),
            ("XD", has_rights && wide, bit::NO_EXECUTE),
        ];
        let set = flags
            .into_iter()
            .filter(|(_, exists, bit)| *exists && self.entry & bit != 0);
        set.map(|(name, ..)| name).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(mode: Mode, level: u8, entry: u64) -> String {
        let space = AddressSpace {
            mode,
            root: 0,
            no_execute: true,
        };
        let step = Step {
            level,
            index: 0,
            at: PhysAddr(0),
            entry,
        };
        step.flags(&space)
    }

    #[test]
    fn flags_mean_what_they_mean_at_that_level() {
        let all = bit::NO_EXECUTE | 0x1fff;
        assert_eq!(
            flags(Mode::Level4, 1, all),
            "P R/W U/S PWT PCD A D PAT G XD"
        );
        assert_eq!(
            flags(Mode::Level4, 2, all),
            "P R/W U/S PWT PCD A D PS G PAT XD"
        );
        assert_eq!(
            flags(Mode::Level4, 2, all & !0x80),
            "P R/W U/S PWT PCD A XD",
            "a table"
        );
        assert_eq!(flags(Mode::Level4, 4, 0x27), "P R/W U/S A");
        assert_eq!(flags(Mode::Pae, 3, 0x3f), "P PWT PCD A", "no rights");
        let bits32 = Mode::Bits32 { huge: false };
        assert_eq!(flags(bits32, 2, 0x87), "P R/W U/S", "PS without PSE");
        assert_eq!(flags(Mode::Level4, 1, all & !1), "", "not present");
    }
}
