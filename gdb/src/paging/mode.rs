//! The paging mode of a vCPU, and the format of its entries.

use std::fmt;

use crate::arch::{Registers, cr0, cr4, efer};

/// Paging modes (SDM volume 3, 5.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Linear addresses are physical ones.
    Off,
    /// Two levels of 4-byte entries; 4 MiB pages with CR4.PSE.
    Bits32 {
        huge: bool,
    },
    /// Three levels of 8-byte entries under 32-bit addresses.
    Pae,
    Level4,
    Level5,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Off => "paging is off",
            Mode::Bits32 { huge: false } => "32-bit paging",
            Mode::Bits32 { huge: true } => "32-bit paging with PSE",
            Mode::Pae => "PAE paging",
            Mode::Level4 => "4-level paging",
            Mode::Level5 => "5-level paging",
        })
    }
}

impl Mode {
    pub(super) fn of(registers: &Registers) -> Self {
        let cr4 = registers.cr4;
        if registers.cr0 & cr0::PG == 0 {
            Mode::Off
        } else if cr4 & cr4::PAE == 0 {
            Mode::Bits32 {
                huge: cr4 & cr4::PSE != 0,
            }
        } else if registers.efer & efer::LMA == 0 {
            Mode::Pae
        } else if cr4 & cr4::LA57 == 0 {
            Mode::Level4
        } else {
            Mode::Level5
        }
    }

    /// Bits of a linear address.
    pub(super) fn address_bits(self) -> u32 {
        match self {
            Mode::Off | Mode::Bits32 { .. } | Mode::Pae => 32,
            Mode::Level4 => 48,
            Mode::Level5 => 57,
        }
    }

    /// The level that CR3 points at; 0 without paging.
    pub(super) fn top(self) -> u8 {
        match self {
            Mode::Off => 0,
            Mode::Bits32 { .. } => 2,
            Mode::Pae => 3,
            Mode::Level4 => 4,
            Mode::Level5 => 5,
        }
    }

    /// Bits of the address that select an entry within a table, at any level.
    /// (PAE's top level has 2, but its address ends there anyway.)
    fn index_bits(self) -> u32 {
        match self {
            Mode::Bits32 { .. } => 10,
            _ => 9,
        }
    }

    /// Entries of a table of `level`.
    pub(super) fn entries(self, level: u8) -> u64 {
        match (self, level) {
            (Mode::Pae, 3) => 4,
            _ => 1 << self.index_bits(),
        }
    }

    /// Size of an entry in bytes.
    pub(super) fn entry_size(self) -> usize {
        match self {
            Mode::Bits32 { .. } => 4,
            _ => 8,
        }
    }

    /// log2 of the size that one entry of `level` covers.
    pub(super) fn shift(self, level: u8) -> u32 {
        12 + self.index_bits() * u32::from(level - 1)
    }

    /// Which entry of its level-`level` table translates `addr`.
    pub(super) fn index(self, level: u8, addr: u64) -> u64 {
        addr >> self.shift(level) & ((1 << self.index_bits()) - 1)
    }

    /// The bits of CR3 that point at the top table.
    pub(super) fn root_mask(self) -> u64 {
        match self {
            Mode::Off => 0,
            Mode::Bits32 { .. } => 0xffff_f000,
            Mode::Pae => 0xffff_ffe0,
            Mode::Level4 | Mode::Level5 => ADDRESS,
        }
    }

    /// Whether an entry of `level` with the page-size bit maps a page itself.
    pub(super) fn may_be_huge(self, level: u8) -> bool {
        match self {
            Mode::Off => false,
            Mode::Bits32 { huge } => huge && level == 2,
            Mode::Pae => level == 2,
            Mode::Level4 | Mode::Level5 => level == 2 || level == 3,
        }
    }

    /// PAE's top-level entries carry no rights (SDM volume 3, table 5-8).
    pub(super) fn has_rights(self, level: u8) -> bool {
        !(self == Mode::Pae && level == 3)
    }
}

/// The physical address in an 8-byte entry or CR3, at the architectural width:
/// the width of the guest's CPU is not known here.
pub(super) const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
