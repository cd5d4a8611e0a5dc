//! Why gdb cannot have a breakpoint or a watchpoint.

use super::halved::Halved;
use crate::address::VirtAddr;
use crate::breakpoints::{MOST_PAGES, Rings, SlotError, TooManyPages};
use crate::machine::AddressError;

/// The breakpoint cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum InsertError {
    #[error(transparent)]
    Halved(#[from] Halved),
    #[error(transparent)]
    Address(AddressError),
    #[error("this host traps no {what} in {}", .rings.name())]
    HostCannot { what: &'static str, rings: Rings },
    #[error("this host does not trap int3 in {}, and {slots}", .rings.name())]
    NeedsSlot { rings: Rings, slots: SlotError },
    #[error("its page is not mapped yet, and {0}")]
    Unmapped(SlotError),
    #[error("it is in a module's section that Linux freed when the module was initialised")]
    Freed,
    #[error(transparent)]
    Slots(SlotError),
    #[error("{slots}, and {pages}")]
    Watch {
        slots: Box<InsertError>,
        pages: PageError,
    },
}

/// Pages cannot be protected for a watchpoint.
#[derive(Debug, thiserror::Error)]
pub(super) enum PageError {
    #[error("only writes can be watched by write-protected pages")]
    NotWrites,
    #[error("this host single-steps no code in {}", .0.name())]
    CannotStep(Rings),
    #[error("{len} bytes are more than {MOST_PAGES} write-protected pages")]
    TooLong { len: u64 },
    #[error(transparent)]
    TooMany(TooManyPages),
    #[error("{:#x} is not mapped: {source}", .addr.0)]
    Unmapped {
        addr: VirtAddr,
        source: AddressError,
    },
    #[error("what is mapped at {:#x} is no RAM", .addr.0)]
    NoRam { addr: VirtAddr },
}
