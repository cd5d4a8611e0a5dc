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

/// The x87 and SSE state, in the format of the FXSAVE image (SDM volume 1, 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// ST0 to ST7, 80-bit extended precision, least significant byte first.
    pub st: [[u8; 10]; 8],
    /// Control word.
    pub fcw: u16,
    /// Status word.
    pub fsw: u16,
    /// Abridged tag word: bit n is set when physical register n is not empty.
    pub ftw: u8,
    /// Opcode of the last x87 instruction.
    pub fop: u16,
    /// Address of the last x87 instruction.
    pub fip: u64,
    /// Address of its memory operand.
    pub fdp: u64,
    /// XMM0 to XMM15, least significant byte first.
    pub xmm: [[u8; 16]; 16],
    pub mxcsr: u32,
}

impl Default for Fpu {
    /// The state after INIT and FNINIT.
    fn default() -> Self {
        Self {
            st: [[0; 10]; 8],
            fcw: 0x37f,
            fsw: 0,
            ftw: 0,
            fop: 0,
            fip: 0,
            fdp: 0,
            xmm: [[0; 16]; 16],
            mxcsr: 0x1f80,
        }
    }
}

/// The registers of one vCPU: general, segment, control, x87 and SSE.
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
    pub fpu: Fpu,
}
