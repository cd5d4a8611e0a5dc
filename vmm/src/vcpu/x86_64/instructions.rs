//! Instructions that the VMM executes to learn of the processor that it runs on.
#![allow(unsafe_code)]

use std::arch::x86_64::{__cpuid, _rdtsc, CpuidResult};

/// CPUID as this process sees it.
#[allow(unused_unsafe)] // Newer toolchains take it for safe.
pub fn cpuid(leaf: u32) -> CpuidResult {
    // SAFETY: every processor with 64 bits has the instruction.
    unsafe { __cpuid(leaf) }
}

/// The host's time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: every processor with 64 bits has the instruction, and Linux lets user code
    // have it.
    unsafe { _rdtsc() }
}
