//! What gdbstub wants to know of the architecture.

use std::num::NonZeroUsize;

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
    type Registers = Registers;
    /// The length of the breakpoint instruction, which on x86 says nothing.
    type BreakpointKind = usize;
    type RegId = Register;
}

impl arch::Registers for Registers {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.rip
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        for register in Register::all(self.vectors.set) {
            let bytes = register.bytes(self);
            for &byte in bytes.iter().take(register.size()) {
                write_byte(Some(byte));
            }
        }
    }

    /// gdbstub deserialises into default registers, so that selectors may not be
    /// checked here: they are taken as they come, and the session compares.
    fn gdb_deserialize(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        // gdb was told which vector registers there are, and sends as many.
        let size = |set| Register::all(set).map(Register::size).sum::<usize>();
        self.vectors.set = [VectorSet::Sse, VectorSet::Avx, VectorSet::Avx512]
            .into_iter()
            .find(|&set| size(set) == bytes.len())
            .ok_or(())?;
        for register in Register::all(self.vectors.set) {
            let (value, rest) = bytes.split_at_checked(register.size()).ok_or(())?;
            bytes = rest;
            match register {
                Register::Selector(n) => {
                    self.set_selector(n, u16::from_le_bytes([value[0], value[1]]))
                }
                _ => register.set_bytes(self, value).map_err(drop)?,
            }
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
