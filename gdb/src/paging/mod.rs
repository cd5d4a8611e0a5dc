//! From virtual to physical addresses, by the debugger's own walk.
//!
//! The hypervisor's translation cannot be used: it walks for the vCPU's current
//! privilege level and sets accessed bits. This walk reads only, ignores what the
//! rights would forbid (a debugger reads and writes what it likes) and reports
//! them instead. Formats: SDM volume 3, chapter 5 ("Paging").

mod entry;
mod mode;
mod ranges;
mod walk;

use crate::target::{PhysAddr, TargetError};

pub use entry::{Kind, Step};
pub use mode::Mode;
pub use ranges::{Limits, Ranges, Row, Span};

/// Where a virtual address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    pub phys: PhysAddr,
    /// In bytes; 4 KiB where paging is off.
    pub page_size: u64,
    pub rights: Rights,
}

/// What the page tables allow, over all levels.
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

#[cfg(test)]
#[path = "model_test.rs"]
mod tests;
