//! What gdbstub wants to know of the architecture.

use std::num::NonZeroUsize;

use gdbstub::arch::{self, RegId};

use super::layout::Register;
use super::registers::Registers;

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
        for register in Register::all() {
            let bytes = register.get(self).to_le_bytes();
            for &byte in bytes.iter().take(register.size()) {
                write_byte(Some(byte));
            }
        }
    }

    /// gdbstub deserialises into default registers, so that selectors may not be
    /// checked here: they are taken as they come, and the session compares.
    fn gdb_deserialize(&mut self, mut bytes: &[u8]) -> Result<(), ()> {
        for register in Register::all() {
            let (value, rest) = bytes.split_at_checked(register.size()).ok_or(())?;
            bytes = rest;
            match register {
                Register::Selector(n) => {
                    self.set_selector(n, u16::from_le_bytes([value[0], value[1]]))
                }
                _ => register.set_bytes(self, value).map_err(drop)?,
            }
        }
        if bytes.is_empty() { Ok(()) } else { Err(()) }
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
