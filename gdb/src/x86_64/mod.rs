//! What is specific to x86-64 in debugging.
//!
//! gdb is told `i386:x86-64` whatever mode a vCPU is in. It reads the description
//! once, when it attaches, while every vCPU may change its mode at any time and
//! all share the one description; and it keeps to the architecture of the symbol
//! file, which here is always a 64-bit one. With a description for 32 bits beside
//! such a file gdb 13 takes neither. So 16- and 32-bit code has its registers
//! under their 64-bit names, RIP as a linear address ([`Registers::linear_rip`]),
//! which is what breakpoints go by, and memory as it is; only gdb's disassembly is
//! wrong there (docs/gdb.md says what to do instead).

mod arch;
mod description;
mod layout;
pub mod msr;
mod registers;
mod vectors;

pub use arch::{Served, X86_64};
pub use description::target_xml;
pub use layout::{MAX_SIZE, Register, WriteError};
pub use registers::{Fpu, Registers, Segment, cr0, cr4, efer, rflags};
pub use vectors::{VectorPart, VectorSet, Vectors};

/// The instruction that a software breakpoint writes: int3.
pub const BREAKPOINT: u8 = 0xcc;

/// The architecture for gdbstub.
pub type Arch = X86_64;
