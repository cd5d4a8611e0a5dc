//! How a single step over the instruction at RIP is done.
//!
//! The processor's own way, the trap flag (TF), is visible to the guest: an event that
//! saves the flags saves TF too. `pushf`, `syscall`, software interrupts and every
//! exception during a step do that. So TF is the exception here. The rule is a
//! [`Plan::Run`]: the vCPU runs, as if there were no debugger, until it is about to
//! execute the instruction where this one ends. That covers instructions that a
//! hypervisor emulates, and the handler of an exception, which comes back.
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
mod here;
mod operand;

use iced_x86::{DecoderError, Mnemonic, Register};

use super::{Registers, cr4, efer};

pub use end::{handler, vector};
use here::Here;
pub use here::{End, Guest, Plan};

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

impl Here<'_> {
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
}

#[cfg(test)]
#[path = "step_test.rs"]
mod tests;
