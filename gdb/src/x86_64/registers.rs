//! The register file as the debugger and the VMM exchange it.

/// A segment register with the hidden part that the processor caches
/// (SDM volume 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub selector: u16,
    pub base: u64,
    /// In bytes, granularity already applied.
    pub limit: u32,
    /// Code segment runs 64-bit code (the L bit).
    pub long: bool,
    /// Default operand size is 32 bits (the D/B bit).
    pub big: bool,
}

/// The registers of one vCPU: general, segment and control.
///
/// Plain values as the architecture defines them; no KVM layout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8 … r15: gdb's own order.
    pub gpr: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    /// IA32_KERNEL_GS_BASE, the base that SWAPGS exchanges with `gs.base`.
    pub k_gs_base: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
}
