//! The register file as the debugger and the VMM exchange it.

use gdbstub_arch::x86::reg::F80;

use super::vectors::Vectors;
use crate::address::VirtAddr;

/// A segment register with the hidden part that the processor caches
/// (SDM volume 3, 3.4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    pub selector: u16,
    pub base: u64,
    /// In bytes, granularity already applied.
    pub limit: u32,
    /// Type, S, DPL and P, as in byte 5 of a descriptor. Without P the register
    /// cannot be used.
    pub access: u8,
    /// Code segment runs 64-bit code (the L bit).
    pub long: bool,
    /// Default operand size is 32 bits (the D/B bit).
    pub big: bool,
}

impl Segment {
    /// Whether the register can be used.
    pub fn is_present(&self) -> bool {
        self.access & 1 << 7 != 0
    }

    /// The privilege level that it takes.
    pub fn dpl(&self) -> u8 {
        self.access >> 5 & 3
    }

    /// The flags of a descriptor's upper half, where they are there (SDM volume 3, 3.4.5).
    pub fn attributes(&self) -> u32 {
        let is_granular = self.limit > 0xf_ffff;
        u32::from(self.access) << 8
            | u32::from(self.long) << 21
            | u32::from(self.big) << 22
            | u32::from(is_granular) << 23
    }

    /// Not a gate, a task or a table.
    pub fn is_code_or_data(&self) -> bool {
        self.access & 1 << 4 != 0
    }
}

/// A table of descriptors, as GDTR and IDTR have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Linear.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u32,
}

/// The x87 and SSE state, in the format of the FXSAVE image (SDM volume 1, 10.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fpu {
    /// ST0 to ST7, 80-bit extended precision, least significant byte first.
    pub st: [F80; 8],
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

/// The registers of one vCPU: general, segment, control, x87 and vector.
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
    /// Where segments and handlers come from, and the task; only to be read.
    pub gdt: Table,
    pub idt: Table,
    pub ldt: Segment,
    pub tr: Segment,
    /// IA32_KERNEL_GS_BASE, the base that SWAPGS exchanges with `gs.base`.
    pub k_gs_base: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub fpu: Fpu,
    pub vectors: Vectors,
}

/// Bits of CR0 (SDM volume 3, 2.5).
pub mod cr0 {
    pub const PE: u64 = 1 << 0;
    pub const PG: u64 = 1 << 31;
}

/// Bits of CR4 (SDM volume 3, 2.5).
pub mod cr4 {
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const LA57: u64 = 1 << 12;
    pub const SMEP: u64 = 1 << 20;
    /// Events are delivered without a descriptor table.
    pub const FRED: u64 = 1 << 32;
}

/// Bits of IA32_EFER (SDM volume 3, 2.2.1).
pub mod efer {
    /// There is SYSCALL.
    pub const SCE: u64 = 1 << 0;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// Bits of RFLAGS (SDM volume 1, 3.4.3).
pub mod rflags {
    pub const CF: u64 = 1 << 0;
    pub const PF: u64 = 1 << 2;
    pub const ZF: u64 = 1 << 6;
    pub const SF: u64 = 1 << 7;
    /// An exception follows each instruction.
    pub const TF: u64 = 1 << 8;
    /// Interrupts are enabled.
    pub const IF: u64 = 1 << 9;
    pub const OF: u64 = 1 << 11;
    /// No instruction breakpoint fires at the next instruction.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
}

impl Registers {
    /// Whether the vCPU executes 64-bit code.
    pub fn is_64_bit(&self) -> bool {
        self.efer & efer::LMA != 0 && self.cs.long
    }

    /// The size of an instruction's operands and addresses if nothing else is said.
    pub fn code_bits(&self) -> u32 {
        match (self.is_64_bit(), self.cs.big) {
            (true, _) => 64,
            (false, true) => 32,
            (false, false) => 16,
        }
    }

    pub fn rcx(&self) -> u64 {
        const RCX: usize = 2;
        self.gpr[RCX]
    }

    pub fn rdx(&self) -> u64 {
        const RDX: usize = 3;
        self.gpr[RDX]
    }

    /// The stack pointer.
    pub fn rsp(&self) -> u64 {
        const RSP: usize = 7;
        self.gpr[RSP]
    }

    /// The linear address of the next instruction.
    pub fn linear_rip(&self) -> VirtAddr {
        self.linear(self.rip)
    }

    /// The linear address of an offset into the code segment, whose base 64-bit code
    /// ignores.
    pub fn linear(&self, offset: u64) -> VirtAddr {
        if self.is_64_bit() {
            VirtAddr(offset)
        } else {
            VirtAddr(self.cs.base.wrapping_add(offset) & u64::from(u32::MAX))
        }
    }

    /// Moves RIP to a linear address, within the code segment.
    pub fn set_linear_rip(&mut self, addr: u64) {
        self.rip = if self.is_64_bit() {
            addr
        } else {
            addr.wrapping_sub(self.cs.base) & u64::from(u32::MAX)
        };
    }

    /// Registers of no vCPU: values that gdb has sent, or a trace frame has kept,
    /// are put into these one by one. Every linear address is a RIP.
    pub(crate) fn blank() -> Self {
        let mut registers = Self {
            efer: efer::LMA,
            ..Self::default()
        };
        registers.cs.long = true;
        registers
    }

    /// The privilege level, 0 to 3 (SDM volume 3, 5.5).
    pub fn cpl(&self) -> u8 {
        if self.cr0 & cr0::PE == 0 {
            0
        } else if self.rflags & rflags::VM != 0 {
            3
        } else {
            (self.cs.selector & 3) as u8
        }
    }

    /// Replaces selector `number` (cs, ss, ds, es, fs, gs) and not its hidden part.
    pub(super) fn set_selector(&mut self, number: u8, selector: u16) {
        self.segment_mut(number).selector = selector;
    }

    /// The segment register of a number: cs, ss, ds, es, fs, gs.
    pub fn segment(&self, number: u8) -> &Segment {
        match number {
            0 => &self.cs,
            1 => &self.ss,
            2 => &self.ds,
            3 => &self.es,
            4 => &self.fs,
            _ => &self.gs,
        }
    }

    pub(super) fn segment_mut(&mut self, number: u8) -> &mut Segment {
        match number {
            0 => &mut self.cs,
            1 => &mut self.ss,
            2 => &mut self.ds,
            3 => &mut self.es,
            4 => &mut self.fs,
            _ => &mut self.gs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rip_is_relative_to_the_code_segment_outside_64_bit_code() {
        let mut registers = Registers {
            rip: 0xfff0,
            ..Registers::default()
        };
        registers.cs.base = 0xffff_0000;
        assert_eq!(
            registers.linear_rip(),
            VirtAddr(0xffff_fff0),
            "reset vector"
        );
        registers.rip = 0x2_0000;
        assert_eq!(registers.linear_rip(), VirtAddr(0x1_0000), "wraps at 4 GiB");
        for addr in [0xffff_fff0, 0x1_0000] {
            registers.set_linear_rip(addr);
            assert_eq!(registers.linear_rip(), VirtAddr(addr));
        }
        registers.efer = efer::LMA;
        registers.cs.long = true;
        assert_eq!(registers.linear_rip(), VirtAddr(0x2_0000));
    }

    #[test]
    fn privilege_level_by_mode() {
        let mut registers = Registers::default();
        registers.cs.selector = 0xf003;
        assert_eq!(registers.cpl(), 0, "real mode: the selector is no selector");
        registers.cr0 = cr0::PE;
        assert_eq!(registers.cpl(), 3);
        registers.cs.selector = 0x10;
        assert_eq!(registers.cpl(), 0);
        registers.rflags = rflags::VM;
        assert_eq!(registers.cpl(), 3, "virtual-8086 mode");
    }
}
