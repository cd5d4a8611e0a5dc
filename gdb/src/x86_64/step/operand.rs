//! The values of an instruction's operands.

use iced_x86::{ConditionCode, Instruction, Mnemonic, OpKind, Register};

use super::here::Here;
use crate::x86_64::{Registers, rflags};

/// gdb's number of a general register, by the processor's.
const GENERAL: [usize; 16] = [0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];

impl Here<'_> {
    /// The value of a general register or the base of a segment register.
    fn value(&self, register: Register) -> Option<u64> {
        let registers = self.registers;
        let flat = registers.is_64_bit();
        Some(match register {
            Register::FS => registers.fs.base,
            Register::GS => registers.gs.base,
            Register::CS | Register::DS | Register::ES | Register::SS if flat => 0,
            Register::CS => registers.cs.base,
            Register::DS => registers.ds.base,
            Register::ES => registers.es.base,
            Register::SS => registers.ss.base,
            register => general(registers, register)?,
        })
    }

    /// The first operand of a near indirect branch.
    pub fn operand(&self, instruction: &Instruction) -> Option<u64> {
        if instruction.op0_kind() == OpKind::Register {
            return self.value(instruction.op0_register());
        }
        let value = |register, _, _| self.value(register);
        let at = instruction.virtual_address(0, 0, value)?;
        self.read(at, instruction.memory_size().size())
    }

    /// The linear address `offset` above the stack pointer.
    pub fn stack(&self, offset: u64) -> u64 {
        let registers = self.registers;
        let rsp = registers.rsp().wrapping_add(offset);
        if registers.is_64_bit() {
            return rsp;
        }
        let mask = if registers.ss.big {
            0xffff_ffff
        } else {
            0xffff
        };
        registers.ss.base.wrapping_add(rsp & mask) & 0xffff_ffff
    }

    /// The stack pointer behind an instruction of 64-bit code that does not load it.
    pub fn stack_pointer_after(&self, instruction: &Instruction) -> Option<u64> {
        let loads = |n| {
            instruction.op_kind(n) == OpKind::Register
                && instruction.op_register(n).full_register() == Register::RSP
        };
        let explicit = (0..instruction.op_count()).any(loads);
        let implicit = matches!(instruction.mnemonic(), Mnemonic::Leave | Mnemonic::Enter);
        if explicit || implicit || !self.registers.is_64_bit() {
            return None;
        }
        let added = i64::from(instruction.stack_pointer_increment());
        Some(self.registers.rsp().wrapping_add_signed(added))
    }

    /// Whether a conditional branch jumps.
    pub fn is_taken(&self, instruction: &Instruction) -> Option<bool> {
        let flag = |flag| self.registers.rflags & flag != 0;
        let (cf, zf, sf) = (flag(rflags::CF), flag(rflags::ZF), flag(rflags::SF));
        let (of, pf) = (flag(rflags::OF), flag(rflags::PF));
        let count = |register| general(self.registers, register);
        Some(match instruction.mnemonic() {
            Mnemonic::Jcxz => count(Register::CX)? == 0,
            Mnemonic::Jecxz => count(Register::ECX)? == 0,
            Mnemonic::Jrcxz => count(Register::RCX)? == 0,
            // How wide the count is depends on a prefix. Both ends are known to the
            // trap flag, which a loop neither saves nor loses to an exception.
            Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne => return None,
            _ => match instruction.condition_code() {
                ConditionCode::o => of,
                ConditionCode::no => !of,
                ConditionCode::b => cf,
                ConditionCode::ae => !cf,
                ConditionCode::e => zf,
                ConditionCode::ne => !zf,
                ConditionCode::be => cf || zf,
                ConditionCode::a => !cf && !zf,
                ConditionCode::s => sf,
                ConditionCode::ns => !sf,
                ConditionCode::p => pf,
                ConditionCode::np => !pf,
                ConditionCode::l => sf != of,
                ConditionCode::ge => sf == of,
                ConditionCode::le => zf || sf != of,
                ConditionCode::g => !zf && sf == of,
                ConditionCode::None => return None,
            },
        })
    }
}

/// As many bits of it as its name says.
fn general(registers: &Registers, register: Register) -> Option<u64> {
    let full = register.full_register();
    if !full.is_gpr64() {
        return None;
    }
    let value = *registers.gpr.get(*GENERAL.get(full.number())?)?;
    Some(match register.size() {
        8 => value,
        4 => value & 0xffff_ffff,
        2 => value & 0xffff,
        _ => return None,
    })
}
