//! How a single step over the instruction at RIP is done.
//!
//! The processor's own way, the trap flag (TF), shows: whatever saves the flags saves
//! it too, where the guest finds it. These are `pushf`, `syscall`, software interrupts,
//! and every exception that comes into a step. So TF is the exception here. The rule is
//! a [`Plan::Run`]: the vCPU runs, as if there were no debugger, until it is about to
//! execute the instruction where this one ends. That covers what a hypervisor emulates,
//! and the handler of an exception, which comes back.
//!
//! | instruction | its step ends |
//! |---|---|
//! | most | behind it, or where it jumps to |
//! | with a repeat prefix | behind the last repetition |
//! | `int`, `int3`, `into`, `int1`, `syscall`, `sysenter`, `ud2` | at the first instruction of the handler |
//! | `iret`, `sysret`, `sysexit` | where it returns to |
//! | `hlt` | behind it; the vCPU is halted |
//! | `mov` and `pop` to SS | behind the instruction that follows |
//! | whose page is not there | as above, when the page fault's handler has come back |

mod end;
mod operand;

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, Register};

use super::{Registers, cr4, efer, rflags};
use crate::target::VirtAddr;

pub use end::{handler, vector};

/// Longest instruction in bytes.
const LONGEST: usize = 15;

/// What a plan needs to know of a guest besides a vCPU's registers.
pub trait Guest {
    /// Reads memory at a linear address: all of `buf`, or false.
    fn read(&self, addr: VirtAddr, buf: &mut [u8]) -> bool;
    /// A model-specific register of the vCPU.
    fn msr(&self, index: u32) -> Option<u64>;
}

/// How a step is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The vCPU runs to the end.
    Run(End),
    /// To this end, where RF keeps a breakpoint from firing on a processor; else with TF.
    /// `guest` is what the guest itself has in TF afterwards.
    Resume { end: End, guest: bool },
    /// The page of the instruction is not there. The vCPU runs to the handler of the page
    /// fault, and comes back from that to an instruction that can be read.
    Fetch { handler: End },
    /// With TF: it cannot be told where the instruction ends, or nothing would stop the
    /// vCPU there. `guest` is what the guest itself has in TF afterwards.
    Trap { guest: bool },
    /// A `hlt` that the vCPU may execute, of this many bytes.
    Halt { len: u64 },
    /// `int1`, of this many bytes. Its #DB is a trap, which DR6 says nothing of (SDM
    /// volume 2, "INT n/INTO/INT3/INT1").
    Int1 { len: u64 },
}

/// Where an instruction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Linear.
    pub at: VirtAddr,
    /// The privilege level there.
    pub cpl: u8,
    /// The stack pointer there, where that is known. Another one tells that it is other
    /// code that has come there first: an exception may let other tasks run.
    pub rsp: Option<u64>,
}

impl End {
    /// Whether a vCPU with these registers is there.
    pub fn is_reached(&self, registers: &Registers) -> bool {
        registers.linear_rip() == self.at && self.rsp.is_none_or(|rsp| rsp == registers.rsp())
    }
}

impl Plan {
    /// The plan for the instruction at RIP.
    pub fn of(registers: &Registers, guest: &dyn Guest) -> Self {
        let here = Here { registers, guest };
        let instruction = match here.decode() {
            Ok(instruction) => instruction,
            Err(error) => return here.plan_without(error),
        };
        match instruction.mnemonic() {
            Mnemonic::Hlt if registers.cpl() == 0 => Plan::Halt {
                len: instruction.len() as u64,
            },
            Mnemonic::Int1 => Plan::Int1 {
                len: instruction.len() as u64,
            },
            Mnemonic::Iret => here.interrupt_return(2),
            Mnemonic::Iretd => here.interrupt_return(4),
            Mnemonic::Iretq => here.interrupt_return(8),
            // Nothing can stop the vCPU between this instruction and the next.
            Mnemonic::Mov | Mnemonic::Pop if instruction.op0_register() == Register::SS => {
                here.trap()
            }
            _ => match here.end(&instruction) {
                Some(end) if end.at != registers.linear_rip() => Plan::Run(end),
                _ => here.trap(),
            },
        }
    }
}

/// A vCPU in front of an instruction.
struct Here<'a> {
    registers: &'a Registers,
    guest: &'a dyn Guest,
}

impl Here<'_> {
    fn trap(&self) -> Plan {
        Plan::Trap {
            guest: self.registers.rflags & rflags::TF != 0,
        }
    }

    /// An exception comes for sure.
    fn plan_without(&self, error: DecoderError) -> Plan {
        let handler = match error {
            DecoderError::NoMoreBytes => {
                let handler = self.handler(vector::PAGE_FAULT);
                handler.map(|handler| Plan::Fetch { handler })
            }
            _ => self.handler(vector::INVALID_OPCODE).map(Plan::Run),
        };
        // Outside of long mode a page fault is not waited for, and FRED's own
        // instructions are not known.
        let registers = self.registers;
        let waits = registers.efer & efer::LMA != 0 && registers.cr4 & cr4::FRED == 0;
        handler.filter(|_| waits).unwrap_or_else(|| self.trap())
    }

    /// What is at RIP.
    fn decode(&self) -> Result<Instruction, DecoderError> {
        let start = self.registers.linear_rip().0;
        let mut bytes = [0; LONGEST];
        let mut len = LONGEST;
        // The page behind may not be there.
        while len > 0 && !self.guest.read(VirtAddr(start), &mut bytes[..len]) {
            len -= 1;
        }
        let ip = self.registers.rip;
        let mut decoder = Decoder::with_ip(
            self.registers.code_bits(),
            &bytes[..len],
            ip,
            DecoderOptions::NONE,
        );
        let instruction = decoder.decode();
        match decoder.last_error() {
            DecoderError::None => Ok(instruction),
            error => Err(error),
        }
    }

    /// Reads a value of 2, 4 or 8 bytes.
    fn read(&self, addr: u64, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let all = self.guest.read(VirtAddr(addr), bytes.get_mut(..size)?);
        all.then_some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
#[path = "step/step_test.rs"]
mod tests;
