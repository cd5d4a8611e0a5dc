//! The x86-64 part of the debugger.
//!
//! gdb knows one architecture at a time, of the connection and not of a vCPU, which
//! may change its mode at any time. [`Description`] is the one that gdb was told
//! last; the session chooses it. RIP is a linear address everywhere
//! ([`Registers::linear_rip`]), as are the addresses of breakpoints.

mod arch;
mod description;
mod layout;
pub mod msr;
mod registers;
mod segments;
pub mod step;
mod vectors;
mod view;

pub use arch::{RegisterNumber, Served, X86_64};
pub use description::{Architecture, Description};
pub use layout::{MAX_SIZE, Register, WriteError};
pub use registers::{Fpu, Registers, Segment, Table, cr0, cr4, efer, rflags};
pub use segments::SegmentError;
pub use vectors::{VectorPart, VectorSet, Vectors};

/// The instruction that a software breakpoint writes: int3.
pub const BREAKPOINT: u8 = 0xcc;

/// The architecture for gdbstub.
pub type Arch = X86_64;
