//! The registers that gdb has of every x86-64 vCPU, in gdbstub_arch's types.
//!
//! [`X86_64CoreRegs`] is what gdb sees, and [`X86_64CoreRegId`] numbers it. They are
//! views, and no more, for three reasons:
//!
//! - A vCPU has registers that they do not know: hidden parts of segments, control
//!   registers, MSRs, descriptor tables, AVX. [`Registers`] has all of them.
//! - They cut values: RFLAGS and the x87 pointers. A write through the whole view
//!   would change registers that gdb did not write, so a write goes to
//!   [`Registers`], one register at a time.
//! - An id cannot be compared with another. [`Register`](super::Register) can.
//!
//! [`X86_64CoreRegId`]: gdbstub_arch::x86::reg::id::X86_64CoreRegId

use gdbstub_arch::x86::reg::{F80, X86_64CoreRegs, X86SegmentRegs, X87FpuInternalRegs};

use super::registers::{Fpu, Registers};

/// These registers as gdb sees them.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn of(registers: &Registers) -> X86_64CoreRegs {
    let Fpu { fip, fdp, .. } = registers.fpu;
    X86_64CoreRegs {
        regs: registers.gpr,
        rip: registers.linear_rip().0,
        eflags: registers.rflags as u32,
        segments: X86SegmentRegs {
            cs: registers.cs.selector.into(),
            ss: registers.ss.selector.into(),
            ds: registers.ds.selector.into(),
            es: registers.es.selector.into(),
            fs: registers.fs.selector.into(),
            gs: registers.gs.selector.into(),
        },
        st: registers.fpu.st,
        fpu: X87FpuInternalRegs {
            fctrl: registers.fpu.fcw.into(),
            fstat: registers.fpu.fsw.into(),
            ftag: full_tag_word(&registers.fpu).into(),
            fiseg: (fip >> 32) as u32 & 0xffff,
            fioff: fip as u32,
            foseg: (fdp >> 32) as u32 & 0xffff,
            fooff: fdp as u32,
            fop: registers.fpu.fop.into(),
        },
        xmm: registers.fpu.xmm.map(u128::from_le_bytes),
        mxcsr: registers.fpu.mxcsr,
    }
}

/// Tags of the x87 tag word (SDM volume 1, figure 8-7).
const VALID: u16 = 0;
const ZERO: u16 = 1;
const SPECIAL: u16 = 2;
const EMPTY: u16 = 3;

/// The two-bit tags that FXSAVE leaves out, worked out again from the registers'
/// contents (SDM volume 1, table 10-2).
pub(super) fn full_tag_word(fpu: &Fpu) -> u16 {
    let top = usize::from(fpu.fsw >> 11 & 7);
    (0..8).fold(0, |word, physical| {
        let tag = if fpu.ftw & 1 << physical == 0 {
            EMPTY
        } else {
            // Tags go with physical registers, values are stored by stack position.
            tag(&fpu.st[(physical + 8 - top) % 8])
        };
        word | tag << (2 * physical)
    })
}

fn tag(value: &F80) -> u16 {
    let exponent = u16::from_le_bytes([value[8], value[9]]) & 0x7fff;
    let integer_bit = value[7] & 0x80 != 0;
    let zero = value[..8].iter().all(|&byte| byte == 0);
    match exponent {
        0 if zero => ZERO,
        0 | 0x7fff => SPECIAL,
        _ if integer_bit => VALID,
        _ => SPECIAL,
    }
}

pub(super) fn abridged_tag_word(full: u16) -> u8 {
    (0..8).fold(0, |word, physical| {
        let empty = full >> (2 * physical) & 3 == EMPTY;
        word | u8::from(!empty) << physical
    })
}

#[cfg(test)]
mod tests {
    use gdbstub::arch::{RegId, Registers as _};
    use gdbstub_arch::x86::reg::id::X86_64CoreRegId;
    use proptest::prelude::*;

    use super::*;
    use crate::x86_64::Register;

    /// Registers of which no two bytes that gdb sees are likely to be the same.
    fn filled(seed: u64) -> Registers {
        let mut registers = Registers::blank();
        let mut next = seed;
        let mut value = || {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            next
        };
        for number in 0..57 {
            let register = Register::from_number(number).unwrap();
            let bytes = [value(), value()].map(u64::to_le_bytes).concat();
            register.load(&mut registers, &bytes[..register.size()]);
        }
        registers
    }

    proptest! {
        /// Register by register it is the same as by gdbstub_arch's own code.
        #[test]
        fn sizes_and_values_are_those_of_gdbstub_arch(seed: u64) {
            let registers = filled(seed);
            let mut whole = Vec::new();
            of(&registers).gdb_serialize(|byte| whole.push(byte.unwrap()));
            let mut at = 0;
            let mut number = 0;
            while let Some((_, size)) = X86_64CoreRegId::from_raw_id(number) {
                let register = Register::from_number(number).unwrap();
                prop_assert_eq!(register.size(), size.unwrap().get());
                let bytes = &register.bytes(&registers)[..register.size()];
                prop_assert_eq!(bytes, &whole[at..at + register.size()], "{:?}", register);
                at += register.size();
                number += 1;
            }
            prop_assert_eq!(at, whole.len());
        }
    }
}
