//! What gdbstub wants to know of the architecture.

use std::num::NonZeroUsize;
use std::sync::Arc;

use gdbstub::arch::{self, RegId};

use super::layout::Register;
use super::registers::Registers;
use super::vectors::VectorSet;

/// x86-64 as [`gdbstub::arch::Arch`]. The target description is served by the
/// session, not from here.
#[derive(Debug)]
pub enum X86_64 {}

impl arch::Arch for X86_64 {
    type Usize = u64;
    type Registers = Served;
    /// The length of the breakpoint instruction, which on x86 says nothing.
    type BreakpointKind = usize;
    type RegId = Register;
}

/// Registers as gdb is sent them: some may not be known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served {
    pub registers: Registers,
    /// Those that are known; `None` for all.
    pub known: Option<Arc<[Register]>>,
}

impl From<Registers> for Served {
    fn from(registers: Registers) -> Self {
        Self {
            registers,
            known: None,
        }
    }
}

impl arch::Registers for Served {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.registers.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for register in Register::all(self.registers.vectors.set) {
            let known = self.known.as_ref();
            let known = known.is_none_or(|known| known.contains(&register));
            let bytes = register.bytes(&self.registers);
            for &byte in bytes.iter().take(register.size()) {
                write_byte(known.then_some(byte));
            }
        }
    }

    /// gdbstub deserialises into default registers, so that selectors may not be
    /// checked here: they are taken as they come, and the session compares.
    fn gdb_deserialize(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        // gdb was told which vector registers there are, and sends as many.
        let size = |set| Register::all(set).map(Register::size).sum::<usize>();
        self.registers = Registers::blank();
        let registers = &mut self.registers;
        registers.vectors.set = [VectorSet::Sse, VectorSet::Avx, VectorSet::Avx512]
            .into_iter()
            .find(|&set| size(set) == bytes.len())
            .ok_or(())?;
        for register in Register::all(registers.vectors.set) {
            let (value, rest) = bytes.split_at_checked(register.size()).ok_or(())?;
            bytes = rest;
            register.load(registers, value);
        }
        Ok(())
    }
}

impl RegId for Register {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        let register = Self::from_number(id)?;
        Some((register, NonZeroUsize::new(register.size())))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.number())
    }
}
