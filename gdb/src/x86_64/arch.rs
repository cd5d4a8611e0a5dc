//! The architecture's description for gdbstub.

use std::num::NonZeroUsize;

use gdbstub::arch::{self, Arch, RegId};
use gdbstub_arch::x86::X86_64_SSE;

use super::description::Description;
use super::layout::Register;
use super::registers::Registers;

/// x86-64 as [`gdbstub::arch::Arch`]: gdbstub_arch's, except for the registers and
/// their numbers, which change with the description that gdb has read. The session
/// serves those, not this type.
#[derive(Debug)]
pub enum X86_64 {}

impl arch::Arch for X86_64 {
    type Usize = <X86_64_SSE as Arch>::Usize;
    type Registers = Served;
    /// The length of the breakpoint instruction, which has no meaning on x86.
    type BreakpointKind = <X86_64_SSE as Arch>::BreakpointKind;
    type RegId = RegisterNumber;
}

/// All registers as they are on the wire; only the session, which has described
/// them, knows which they are. A byte may not be known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Served(pub Vec<Option<u8>>);

impl Served {
    /// Those of `known`, or all.
    pub fn new(
        description: Description,
        registers: &Registers,
        known: Option<&[Register]>,
    ) -> Self {
        let bytes = description.registers().into_iter().flat_map(|register| {
            let known = known.is_none_or(|known| known.contains(&register));
            let bytes = description.bytes(register, registers).into_iter();
            bytes.map(move |byte| known.then_some(byte))
        });
        Self(bytes.collect())
    }

    /// All bytes, if they are known.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        self.0.iter().copied().collect()
    }
}

impl arch::Registers for Served {
    type ProgramCounter = u64;

    /// gdbstub does not ask for it.
    fn pc(&self) -> u64 {
        0
    }

    fn gdb_serialize(&self, write_byte: impl FnMut(Option<u8>)) {
        self.0.iter().copied().for_each(write_byte);
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.0 = bytes.iter().copied().map(Some).collect();
        Ok(())
    }
}

/// gdb's number for a register, by the description that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterNumber(pub usize);

impl RegId for RegisterNumber {
    fn from_raw_id(id: usize) -> Option<(Self, Option<NonZeroUsize>)> {
        // No description has more of them than that of 64-bit code.
        Register::from_number(id).map(|_| (Self(id), None))
    }

    fn to_raw_id(&self) -> Option<usize> {
        Some(self.0)
    }
}
