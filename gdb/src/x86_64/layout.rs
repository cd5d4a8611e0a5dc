//! The registers as gdb names and encodes them.
//!
//! Numbers, sizes and names are those of the x86-64 description;
//! [`Description`](super::Description) has those of the others.

use gdbstub::arch::RegId;
use gdbstub_arch::x86::reg::id::{X86_64CoreRegId, X86SegmentRegId, X87FpuInternalRegId};

use super::registers::{Fpu, Registers};
use super::vectors::{VectorPart, VectorSet};
use super::view;

/// One register by the name that `target.xml` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// rax … r15, an index into [`Registers::gpr`].
    Gpr(u8),
    /// As a linear address ([`Registers::linear_rip`]): gdb knows no segments, and
    /// compares it with the addresses of breakpoints.
    Rip,
    Eflags,
    /// cs, ss, ds, es, fs, gs.
    Selector(u8),
    St(u8),
    Fctrl,
    Fstat,
    Ftag,
    Fiseg,
    Fioff,
    Foseg,
    Fooff,
    Fop,
    Xmm(u8),
    Mxcsr,
    FsBase,
    GsBase,
    KGsBase,
    Cr0,
    Cr2,
    Cr3,
    Cr4,
    Cr8,
    Efer,
    /// AVX and AVX-512; not every vCPU has them.
    Vector(VectorPart),
}

/// Number of registers that every vCPU has. Behind them come the vector
/// registers, those of the smaller set first.
const BASE: usize = 66;

/// The size of the largest register in bytes.
pub const MAX_SIZE: usize = 32;

/// The value does not go into the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    #[error("{found} bytes for a register of {size}")]
    Size { size: usize, found: usize },
    /// The hidden part of a segment register (SDM volume 3, 3.4.3) goes with it:
    /// that is [`Registers::load_segment`]'s business.
    #[error("a segment selector is not changed alone")]
    Selector,
}

impl Register {
    /// The program counter.
    pub const PC: Self = Self::Rip;

    /// The register that is `number` in the x86-64 description: first those that
    /// gdbstub_arch has.
    pub fn from_number(number: usize) -> Option<Self> {
        use Register::*;
        if let Some((id, _)) = X86_64CoreRegId::from_raw_id(number) {
            return Self::from_id(id);
        }
        Some(match number {
            57 => FsBase,
            58 => GsBase,
            59 => KGsBase,
            60 => Cr0,
            61 => Cr2,
            62 => Cr3,
            63 => Cr4,
            64 => Cr8,
            65 => Efer,
            _ => {
                let parts = VectorPart::all(VectorSet::Avx512);
                Vector(*parts.get(number.checked_sub(BASE)?)?)
            }
        })
    }

    /// The register of an id; `None` for one that a later gdbstub_arch adds.
    fn from_id(id: X86_64CoreRegId) -> Option<Self> {
        use X86_64CoreRegId as Id;
        Some(match id {
            Id::Gpr(n) => Self::Gpr(n),
            Id::Rip => Self::Rip,
            Id::Eflags => Self::Eflags,
            Id::Segment(segment) => Self::Selector(match segment {
                X86SegmentRegId::CS => 0,
                X86SegmentRegId::SS => 1,
                X86SegmentRegId::DS => 2,
                X86SegmentRegId::ES => 3,
                X86SegmentRegId::FS => 4,
                X86SegmentRegId::GS => 5,
            }),
            Id::St(n) => Self::St(n),
            Id::Fpu(internal) => match internal {
                X87FpuInternalRegId::Fctrl => Self::Fctrl,
                X87FpuInternalRegId::Fstat => Self::Fstat,
                X87FpuInternalRegId::Ftag => Self::Ftag,
                X87FpuInternalRegId::Fiseg => Self::Fiseg,
                X87FpuInternalRegId::Fioff => Self::Fioff,
                X87FpuInternalRegId::Foseg => Self::Foseg,
                X87FpuInternalRegId::Fooff => Self::Fooff,
                X87FpuInternalRegId::Fop => Self::Fop,
            },
            Id::Xmm(n) => Self::Xmm(n),
            Id::Mxcsr => Self::Mxcsr,
            _ => return None,
        })
    }

    /// All registers of a vCPU with these vector registers, in gdb's order.
    pub fn all(set: VectorSet) -> impl Iterator<Item = Self> {
        let vectors = VectorPart::all(set).into_iter().map(Self::Vector);
        (0..BASE).filter_map(Self::from_number).chain(vectors)
    }

    /// What it is of the vectors beyond SSE's.
    pub(super) fn vector_part(self) -> Option<VectorPart> {
        match self {
            Self::Vector(part) => Some(part),
            _ => None,
        }
    }

    /// gdb's name for it.
    pub fn name(self) -> String {
        const GPR: [&str; 8] = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"];
        const SELECTOR: [&str; 6] = ["cs", "ss", "ds", "es", "fs", "gs"];
        match self {
            Register::Gpr(n) => match GPR.get(usize::from(n)) {
                Some(name) => (*name).to_owned(),
                None => format!("r{n}"),
            },
            Register::Selector(n) => SELECTOR[usize::from(n)].to_owned(),
            Register::St(n) => format!("st{n}"),
            Register::Xmm(n) => format!("xmm{n}"),
            Register::FsBase => "fs_base".to_owned(),
            Register::GsBase => "gs_base".to_owned(),
            Register::KGsBase => "k_gs_base".to_owned(),
            Register::Vector(part) => part.name(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// In bytes, on the wire.
    pub fn size(self) -> usize {
        use Register::*;
        match self {
            Eflags | Selector(_) | Fctrl | Fstat | Ftag | Fiseg | Fioff | Foseg | Fooff | Fop
            | Mxcsr => 4,
            St(_) => 10,
            Xmm(_) => 16,
            Vector(part) => part.size(),
            _ => 8,
        }
    }

    /// The value, least significant byte first; those from [`Register::size`] on
    /// are 0.
    pub fn bytes(self, registers: &Registers) -> [u8; MAX_SIZE] {
        let mut bytes = [0; MAX_SIZE];
        match self {
            Self::Vector(part) => {
                bytes[..part.size()].copy_from_slice(part.bytes(&registers.vectors))
            }
            _ => bytes[..16].copy_from_slice(&self.get(registers).to_le_bytes()),
        }
        bytes
    }

    /// The value of one that every vCPU has; bits above [`Register::size`] are 0.
    fn get(self, registers: &Registers) -> u128 {
        use Register::*;
        let core = view::of(registers);
        u128::from(match self {
            Gpr(n) => core.regs[usize::from(n)],
            Rip => core.rip,
            Eflags => core.eflags.into(),
            Selector(n) => registers.segment(n).selector.into(),
            St(n) => {
                let mut bytes = [0; 16];
                bytes[..10].copy_from_slice(&core.st[usize::from(n)]);
                return u128::from_le_bytes(bytes);
            }
            Fctrl => core.fpu.fctrl.into(),
            Fstat => core.fpu.fstat.into(),
            Ftag => core.fpu.ftag.into(),
            Fiseg => core.fpu.fiseg.into(),
            Fioff => core.fpu.fioff.into(),
            Foseg => core.fpu.foseg.into(),
            Fooff => core.fpu.fooff.into(),
            Fop => core.fpu.fop.into(),
            Xmm(n) => return core.xmm[usize::from(n)],
            Mxcsr => core.mxcsr.into(),
            FsBase => registers.fs.base,
            GsBase => registers.gs.base,
            KGsBase => registers.k_gs_base,
            Cr0 => registers.cr0,
            Cr2 => registers.cr2,
            Cr3 => registers.cr3,
            Cr4 => registers.cr4,
            Cr8 => registers.cr8,
            Efer => registers.efer,
            Vector(_) => 0,
        })
    }

    /// Sets one that every vCPU has. Bits that it does not have are dropped.
    ///
    /// # Errors
    /// A selector would change.
    #[allow(clippy::cast_possible_truncation)]
    fn set(self, registers: &mut Registers, value: u128) -> Result<(), WriteError> {
        use Register::*;
        let low = value as u64;
        match self {
            Gpr(n) => registers.gpr[usize::from(n)] = low,
            Rip => registers.set_linear_rip(low),
            Eflags => registers.rflags = low & u64::from(u32::MAX),
            Selector(n) if u64::from(registers.segment(n).selector) == low => {}
            Selector(_) => return Err(WriteError::Selector),
            FsBase => registers.fs.base = low,
            GsBase => registers.gs.base = low,
            KGsBase => registers.k_gs_base = low,
            Cr0 => registers.cr0 = low,
            Cr2 => registers.cr2 = low,
            Cr3 => registers.cr3 = low,
            Cr4 => registers.cr4 = low,
            Cr8 => registers.cr8 = low,
            Efer => registers.efer = low,
            St(_) | Fctrl | Fstat | Ftag | Fiseg | Fioff | Foseg | Fooff | Fop | Xmm(_) | Mxcsr => {
                self.set_fpu(&mut registers.fpu, value)
            }
            Vector(_) => {}
        }
        Ok(())
    }

    #[allow(clippy::cast_possible_truncation)]
    fn set_fpu(self, fpu: &mut Fpu, value: u128) {
        use Register::*;
        const LOW: u64 = u32::MAX as u64;
        let low = value as u64;
        match self {
            St(n) => fpu.st[usize::from(n)].copy_from_slice(&value.to_le_bytes()[..10]),
            Fctrl => fpu.fcw = low as u16,
            Fstat => fpu.fsw = low as u16,
            Ftag => fpu.ftw = view::abridged_tag_word(low as u16),
            Fiseg => fpu.fip = fpu.fip & LOW | (low & 0xffff) << 32,
            Fioff => fpu.fip = fpu.fip & !LOW | low & LOW,
            Foseg => fpu.fdp = fpu.fdp & LOW | (low & 0xffff) << 32,
            Fooff => fpu.fdp = fpu.fdp & !LOW | low & LOW,
            Fop => fpu.fop = low as u16,
            Xmm(n) => fpu.xmm[usize::from(n)] = value.to_le_bytes(),
            Mxcsr => fpu.mxcsr = low as u32,
            _ => {}
        }
    }

    /// Sets it from as many bytes as it has, selectors included: for registers
    /// that are to be looked at and not to be loaded into a vCPU.
    pub fn load(self, registers: &mut Registers, bytes: &[u8]) {
        match (self, bytes) {
            (Register::Selector(n), [low, high, ..]) => {
                registers.set_selector(n, u16::from_le_bytes([*low, *high]))
            }
            // The only other error is a wrong number of bytes.
            _ => drop(self.set_bytes(registers, bytes)),
        }
    }

    /// Sets it from the wire's bytes.
    ///
    /// # Errors
    /// The length is wrong, or a selector would change.
    pub fn set_bytes(self, registers: &mut Registers, bytes: &[u8]) -> Result<(), WriteError> {
        if bytes.len() != self.size() {
            return Err(WriteError::Size {
                size: self.size(),
                found: bytes.len(),
            });
        }
        if let Self::Vector(part) = self {
            part.bytes_mut(&mut registers.vectors)
                .copy_from_slice(bytes);
            return Ok(());
        }
        let mut value = [0; 16];
        value[..bytes.len()].copy_from_slice(bytes);
        self.set(registers, u128::from_le_bytes(value))
    }
}

#[cfg(test)]
#[path = "layout_test.rs"]
mod tests;
