//! What is specific to x86-64 in debugging.
//!
//! gdb is told `i386:x86-64` whatever mode a vCPU is in. For 16- and 32-bit code
//! that means: registers and memory are right, but gdb disassembles as 64-bit
//! code unless the user says `set architecture i8086` or `i386`, and RIP is an
//! offset into the code segment while breakpoint addresses are linear
//! ([`Registers::linear_rip`]): the two differ when the segment's base is not 0.

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
