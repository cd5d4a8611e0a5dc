//! The page tables of one vCPU, and the result of a walk through them.

use super::bit;
use super::mode::Mode;
use crate::address::PhysAddr;
use crate::arch::{Registers, efer};
use crate::error::TargetError;

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    pub phys: PhysAddr,
    /// In bytes; 4 KiB where paging is off.
    pub page_size: u64,
    pub rights: Rights,
}

/// The rights that the page tables give, over all levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    pub write: bool,
    /// Accessible to ring 3.
    pub user: bool,
    pub execute: bool,
}

/// Why an address leads nowhere. Levels count from 1 (the page table) to 5.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    #[error("address {0:#x} is not canonical in this paging mode")]
    NotCanonical(u64),
    #[error("address {0:#x} is beyond the 4 GiB of this mode")]
    BeyondLinear(u64),
    #[error("the level-{level} entry is not present")]
    NotPresent { level: u8 },
    #[error("the level-{level} entry {entry:#x} has reserved bits set")]
    Reserved { level: u8, entry: u64 },
    #[error("the level-{level} table cannot be read")]
    Unreadable {
        level: u8,
        #[source]
        source: TargetError,
    },
}

/// The page tables of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressSpace {
    pub mode: Mode,
    /// CR3, as it is.
    pub root: u64,
    /// EFER.NXE: bit 63 of an entry forbids execution; else it is reserved.
    pub no_execute: bool,
}

impl AddressSpace {
    /// The address space that a vCPU with these registers uses.
    pub fn of(registers: &Registers) -> Self {
        Self {
            mode: Mode::of(registers),
            root: registers.cr3,
            no_execute: registers.efer & efer::NXE != 0,
        }
    }
}

pub(super) const ALL: Rights = Rights {
    write: true,
    user: true,
    execute: true,
};

impl Rights {
    /// The rights that remain after an entry.
    pub(super) fn and(self, entry: u64, no_execute: bool) -> Self {
        Self {
            write: self.write && entry & bit::WRITE != 0,
            user: self.user && entry & bit::USER != 0,
            execute: self.execute && !(no_execute && entry & bit::NO_EXECUTE != 0),
        }
    }
}
