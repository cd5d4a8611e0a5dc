//! The description of a vCPU for gdb: its architecture, and with it the
//! registers, their order and their sizes.
//!
//! gdb's register n is the n-th `<reg>` of the target description, and the 'g'
//! packet is all of them in that order. Under a description of 16- or 32-bit code
//! a register of 64 bits is seen by its lower half, and a write leaves the upper
//! half alone: the vCPU may run 64-bit code by now.

use super::layout::{MAX_SIZE, Register, WriteError};
use super::registers::Registers;
use super::vectors::{self, VectorPart, VectorSet};

/// Registers of x86-64 code, with gdb's types for those of 32-bit code too.
const BASE: &str = include_str!("target.xml");

/// The general registers of 32-bit code in gdb's order: eax, ecx, edx, ebx, esp,
/// ebp, esi, edi, as indices into [`Registers::gpr`].
const GPR_32: [u8; 8] = [0, 2, 3, 1, 7, 6, 4, 5];

/// How many registers of a kind 32-bit code can name.
const VECTORS_32: u8 = 8;

/// gdb's names for the code that a vCPU executes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Architecture {
    /// 16-bit code.
    I8086,
    /// 32-bit code.
    I386,
    #[default]
    X86_64,
}

impl Architecture {
    pub const ALL: [Self; 3] = [Self::I8086, Self::I386, Self::X86_64];

    /// The mode in which the vCPU's next instruction is decoded (SDM volume 3,
    /// 3.4.5 and 5.2.1).
    pub fn of(registers: &Registers) -> Self {
        if registers.is_64_bit() {
            Self::X86_64
        } else if registers.cs.big {
            Self::I386
        } else {
            Self::I8086
        }
    }

    /// As gdb and BFD spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::I8086 => "i8086",
            Self::I386 => "i386",
            Self::X86_64 => "i386:x86-64",
        }
    }
}

/// The registers as one gdb knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    pub architecture: Architecture,
    pub set: VectorSet,
}

impl Description {
    /// All registers, in gdb's order.
    pub fn registers(self) -> Vec<Register> {
        let all = Register::all(self.set);
        if self.is_64_bit() {
            return all.collect();
        }
        let general = GPR_32.into_iter().map(Register::Gpr);
        general
            .chain(all.filter(|&other| is_in_32(other)))
            .collect()
    }

    pub fn register(self, number: usize) -> Option<Register> {
        self.registers().get(number).copied()
    }

    /// gdb's number for a register, if it knows that.
    pub fn number(self, register: Register) -> Option<usize> {
        self.registers().iter().position(|&other| other == register)
    }

    fn is_64_bit(self) -> bool {
        self.architecture == Architecture::X86_64
    }

    /// In bytes, on the wire.
    pub fn size(self, register: Register) -> usize {
        match register {
            Register::Gpr(_) | Register::Rip if !self.is_64_bit() => 4,
            other => other.size(),
        }
    }

    /// gdb's name for it.
    pub fn name(self, register: Register) -> String {
        let name = register.name();
        match register {
            Register::Gpr(_) | Register::Rip if !self.is_64_bit() => name.replacen('r', "e", 1),
            _ => name,
        }
    }

    /// The value as gdb is sent it, least significant byte first.
    pub fn bytes(self, register: Register, registers: &Registers) -> Vec<u8> {
        register.bytes(registers)[..self.size(register)].to_vec()
    }

    /// All that gdb has in `bytes`, as many as it sends for all registers.
    pub fn split(self, mut bytes: &[u8]) -> Option<Vec<(Register, &[u8])>> {
        let mut values = Vec::new();
        for register in self.registers() {
            let (value, rest) = bytes.split_at_checked(self.size(register))?;
            values.push((register, value));
            bytes = rest;
        }
        bytes.is_empty().then_some(values)
    }

    /// Sets a register from the wire's bytes.
    ///
    /// # Errors
    /// The length is wrong, or a selector would change: see
    /// [`Register::set_bytes`].
    pub fn set_bytes(
        self,
        register: Register,
        registers: &mut Registers,
        bytes: &[u8],
    ) -> Result<(), WriteError> {
        let (size, found) = (self.size(register), bytes.len());
        if size != found {
            return Err(WriteError::Size { size, found });
        }
        let mut whole: [u8; MAX_SIZE] = register.bytes(registers);
        whole[..size].copy_from_slice(bytes);
        register.set_bytes(registers, &whole[..register.size()])
    }

    /// gdb's `target.xml` (gdb manual, "Target Descriptions").
    ///
    /// It names the other architectures as compatible, so that gdb takes it beside
    /// a symbol file of any of them; it would take neither otherwise.
    pub fn xml(self) -> String {
        let (features, end) = BASE
            .rsplit_once("</target>")
            .map_or((BASE, ""), |(features, _)| (features, "</target>\n"));
        let mut xml = String::new();
        for line in features.lines() {
            self.translate(line, &mut xml);
        }
        let parts = self.registers().into_iter();
        let parts: Vec<_> = parts.filter_map(Register::vector_part).collect();
        xml.push_str(&vectors::features(self.set, &parts));
        xml.push_str(end);
        xml
    }

    /// A line of the x86-64 description, as it is in this one.
    fn translate(self, line: &str, xml: &mut String) {
        let mut push = |line: &str| {
            xml.push_str(line);
            xml.push('\n');
        };
        if line.contains("<architecture>") {
            push(&format!(
                "  <architecture>{}</architecture>",
                self.architecture.name()
            ));
            // A machine is no GNU/Linux process, for which gdb would take it, and look for a
            // dynamic linker's libraries instead of those that it is told of.
            push("  <osabi>none</osabi>");
            let others = Architecture::ALL.into_iter();
            for other in others.filter(|&other| other != self.architecture) {
                push(&format!("  <compatible>{}</compatible>", other.name()));
            }
            return;
        }
        let described = line.trim_start().strip_prefix("<reg name=\"");
        let name = described.and_then(|rest| rest.split('"').next());
        match name.and_then(named) {
            _ if self.is_64_bit() => push(line),
            Some(Register::Gpr(0)) => {
                for n in GPR_32 {
                    let name = self.name(Register::Gpr(n));
                    // As gdb's own: esp and ebp are pointers to data.
                    let kind = if n == 6 || n == 7 {
                        "data_ptr"
                    } else {
                        "int32"
                    };
                    push(&format!(
                        "    <reg name=\"{name}\" bitsize=\"32\" type=\"{kind}\"/>"
                    ));
                }
            }
            Some(Register::Gpr(_)) => {}
            Some(Register::Rip) => push("    <reg name=\"eip\" bitsize=\"32\" type=\"code_ptr\"/>"),
            // A pointer has 32 bits here.
            Some(Register::Cr2) => push(&line.replace("data_ptr", "int64")),
            Some(register) if !is_in_32(register) => {}
            // gdb gives the registers of its own feature their numbers in 64-bit code.
            _ => push(&line.replace("org.gnu.gdb.i386.segments", "org.outboard.x86.bases")),
        }
    }
}

/// Whether 32-bit code has it, general registers aside.
fn is_in_32(register: Register) -> bool {
    match register {
        Register::Gpr(_) => false,
        Register::Xmm(n) => n < VECTORS_32,
        Register::Vector(VectorPart::Mask(_)) => true,
        Register::Vector(VectorPart::YmmHigh(n) | VectorPart::ZmmHigh(n)) => n < VECTORS_32,
        Register::Vector(VectorPart::Xmm(_)) => false,
        _ => true,
    }
}

fn named(name: &str) -> Option<Register> {
    Register::all(VectorSet::Sse).find(|register| register.name() == name)
}

#[cfg(test)]
#[path = "description_test.rs"]
mod tests;
