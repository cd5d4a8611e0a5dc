//! Instructions that the VMM executes to learn of the processor that it runs on.
#![allow(unsafe_code)]

use std::arch::x86_64::{__cpuid, CpuidResult};

/// CPUID as this process sees it.
#[allow(unused_unsafe)] // Newer toolchains take it for safe.
pub fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every processor with 64 bits has the instruction.
    unsafe { __cpuid(leaf) }
}
