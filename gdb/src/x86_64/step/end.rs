//! Where instructions end.

use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind};

use super::here::{End, Guest, Here, Plan};
use crate::address::VirtAddr;
use crate::x86_64::{Registers, cr0, cr4, efer, msr, rflags, segments};

/// Exception vectors (SDM volume 3, table 7-1).
pub mod vector {
    pub const DEBUG: u8 = 1;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const INVALID_OPCODE: u8 = 6;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
}

/// The first instruction of the handler of an exception or interrupt; `None` where that
/// cannot be told.
pub fn handler(registers: &Registers, guest: &dyn Guest, vector: u8) -> Option<End> {
    Here { registers, guest }.handler(vector)
}

/// An entry of the interrupt descriptor table.
struct Gate {
    selector: u16,
    offset: u64,
    dpl: u8,
}

impl Here<'_> {
    /// Where `instruction` ends; `None` where that cannot be told.
    pub fn end(&self, instruction: &Instruction) -> Option<End> {
        match instruction.mnemonic() {
            Mnemonic::Int => self.software(instruction.immediate8()),
            Mnemonic::Int3 => self.software(vector::BREAKPOINT),
            Mnemonic::Into if self.registers.rflags & rflags::OF != 0 => {
                self.software(vector::OVERFLOW)
            }
            Mnemonic::Ud0 | Mnemonic::Ud1 | Mnemonic::Ud2 => self.handler(vector::INVALID_OPCODE),
            Mnemonic::Syscall => self.system_call(),
            Mnemonic::Sysenter => self.kernel(self.guest.msr(msr::IA32_SYSENTER_EIP)?),
            Mnemonic::Sysret | Mnemonic::Sysretq if self.registers.cpl() == 0 => {
                let wide = instruction.mnemonic() == Mnemonic::Sysretq;
                self.user(self.registers.rcx(), wide, None)
            }
            Mnemonic::Sysexit | Mnemonic::Sysexitq if self.registers.cpl() == 0 => {
                let wide = instruction.mnemonic() == Mnemonic::Sysexitq;
                self.user(self.registers.rdx(), wide, Some(self.registers.rcx()))
            }
            _ => self.jump(instruction),
        }
    }

    fn jump(&self, instruction: &Instruction) -> Option<End> {
        let next = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::ConditionalBranch => match self.is_taken(instruction)? {
                true => self.near(instruction, instruction.near_branch_target()),
                false => self.near(instruction, next),
            },
            FlowControl::UnconditionalBranch | FlowControl::Call => {
                match instruction.op0_kind() {
                    OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                        self.near(instruction, instruction.near_branch_target())
                    }
                    OpKind::FarBranch16 => self.far(
                        instruction.far_branch_selector(),
                        instruction.far_branch16().into(),
                    ),
                    OpKind::FarBranch32 => self.far(
                        instruction.far_branch_selector(),
                        instruction.far_branch32().into(),
                    ),
                    // vmcall and the like.
                    _ => self.near(instruction, next),
                }
            }
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                let near =
                    instruction.is_jmp_near_indirect() || instruction.is_call_near_indirect();
                let target = if near {
                    self.operand(instruction)?
                } else {
                    return None;
                };
                self.near(instruction, target)
            }
            FlowControl::Return => match instruction.mnemonic() {
                Mnemonic::Ret => {
                    let popped = instruction.stack_pointer_increment();
                    let size = (popped - i32::from(immediate(instruction))) as usize;
                    self.near(instruction, self.read(self.stack(0), size)?)
                }
                _ => None,
            },
            FlowControl::XbeginXabortXend => None,
            FlowControl::Next | FlowControl::Interrupt | FlowControl::Exception => {
                self.near(instruction, next)
            }
        }
    }

    /// In the same code segment.
    fn near(&self, instruction: &Instruction, rip: u64) -> Option<End> {
        let rip = match self.registers.code_bits() {
            64 => rip,
            32 => rip & 0xffff_ffff,
            _ => rip & 0xffff,
        };
        Some(End {
            at: self.registers.linear(rip),
            cpl: self.registers.cpl(),
            rsp: self.stack_pointer_after(instruction),
        })
    }

    /// In another code segment.
    fn far(&self, selector: u16, offset: u64) -> Option<End> {
        let mut there = *self.registers;
        let read = |addr, buf: &mut [u8]| self.guest.read(addr, buf);
        there.load_segment(segments::CS, selector, read).ok()?;
        Some(End {
            at: there.linear(offset),
            cpl: there.cpl(),
            rsp: None,
        })
    }

    fn kernel(&self, at: u64) -> Option<End> {
        let at = VirtAddr(at);
        Some(End {
            at,
            cpl: 0,
            rsp: None,
        })
    }

    /// Ring 3's code and stack are flat there.
    fn user(&self, at: u64, wide: bool, rsp: Option<u64>) -> Option<End> {
        let mask = if wide { u64::MAX } else { u32::MAX.into() };
        Some(End {
            at: VirtAddr(at & mask),
            cpl: 3,
            rsp: rsp.map(|rsp| rsp & mask),
        })
    }

    /// SDM volume 2, "SYSCALL"; AMD's processors have it outside of long mode too (APM
    /// volume 3).
    fn system_call(&self) -> Option<End> {
        let registers = self.registers;
        if registers.efer & efer::SCE == 0 {
            return self.handler(vector::INVALID_OPCODE);
        }
        let msr = |index| self.guest.msr(index);
        self.kernel(match (registers.efer & efer::LMA != 0, registers.cs.long) {
            (true, true) => msr(msr::IA32_LSTAR)?,
            (true, false) => msr(msr::IA32_CSTAR)?,
            (false, _) => msr(msr::IA32_STAR)? & 0xffff_ffff,
        })
    }

    /// A software interrupt, which is a #GP if ring 3 may not have it (SDM volume 3,
    /// 7.12.1.2).
    fn software(&self, vector: u8) -> Option<End> {
        if self.registers.rflags & rflags::VM != 0 {
            return None;
        }
        let allowed = match self.gate(vector) {
            Some(gate) => gate.dpl >= self.registers.cpl(),
            None => true,
        };
        self.handler(if allowed {
            vector
        } else {
            vector::GENERAL_PROTECTION
        })
    }

    pub fn handler(&self, vector: u8) -> Option<End> {
        let registers = self.registers;
        if registers.cr4 & cr4::FRED != 0 && registers.efer & efer::LMA != 0 {
            return self.fred_handler();
        }
        let gate = self.gate(vector)?;
        let end = self.far(gate.selector, gate.offset)?;
        // In long mode handlers are 64-bit code, whatever is interrupted.
        let at = match registers.efer & efer::LMA != 0 {
            true => VirtAddr(gate.offset),
            false => end.at,
        };
        Some(End { at, ..end })
    }

    /// SDM volume 3, 8.3 ("FRED event delivery"): events of ring 3 begin at the page that
    /// IA32_FRED_CONFIG names, those of ring 0 256 bytes behind.
    fn fred_handler(&self) -> Option<End> {
        const PAGE: u64 = !0xfff;
        const RING_0: u64 = 256;
        let page = self.guest.msr(msr::IA32_FRED_CONFIG)? & PAGE;
        let offset = if self.registers.cpl() == 0 { RING_0 } else { 0 };
        self.kernel(page + offset)
    }

    /// SDM volume 3, 7.11 and 7.14.1; in real mode, 22.1.4.
    fn gate(&self, vector: u8) -> Option<Gate> {
        const TASK_GATE: u8 = 5;
        let registers = self.registers;
        let size = match (
            registers.cr0 & cr0::PE != 0,
            registers.efer & efer::LMA != 0,
        ) {
            (false, _) => 4,
            (true, false) => 8,
            (true, true) => 16,
        };
        let offset = u32::from(vector) * size;
        if offset + size - 1 > registers.idt.limit {
            return None;
        }
        let at = registers.idt.base.wrapping_add(offset.into());
        let low = self.read(at, size.min(8) as usize)?;
        if size == 4 {
            return Some(Gate {
                selector: (low >> 16) as u16,
                offset: low & 0xffff,
                dpl: 3,
            });
        }
        let high = if size == 16 {
            self.read(at.wrapping_add(8), 4)?
        } else {
            0
        };
        let access = (low >> 40) as u8;
        if access & 0xf == TASK_GATE {
            return None;
        }
        // A gate that is of 16 bits only has zeros in the upper half.
        Some(Gate {
            selector: (low >> 16) as u16,
            offset: low & 0xffff | low >> 32 & 0xffff_0000 | high << 32,
            dpl: access >> 5 & 3,
        })
    }

    /// `iret` loads TF and RF from its stack frame. With RF no breakpoint stops the
    /// vCPU there (SDM volume 3, 19.3.1.1).
    pub fn interrupt_return(&self, size: usize) -> Plan {
        self.read_frame(size).unwrap_or_else(|| self.trap())
    }

    fn read_frame(&self, size: usize) -> Option<Plan> {
        let word = |n: u64| self.read(self.stack(n * size as u64), size);
        let (rip, selector, flags) = (word(0)?, word(1)? as u16, word(2)?);
        let guest = flags & rflags::TF != 0;
        let end = match flags & rflags::VM {
            0 => self.far(selector, rip),
            _ => None,
        };
        let Some(end) = end else {
            return Some(Plan::Trap { guest });
        };
        let rsp = if self.registers.is_64_bit() {
            word(3)
        } else {
            None
        };
        let end = End { rsp, ..end };
        Some(match flags & rflags::RF {
            0 => Plan::Run(end),
            _ => Plan::Resume { end, guest },
        })
    }
}

/// The immediate of `ret`.
fn immediate(instruction: &Instruction) -> u16 {
    match instruction.op_count() {
        0 => 0,
        _ => instruction.immediate16(),
    }
}
