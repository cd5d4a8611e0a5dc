//! A vCPU in front of an instruction, and how a step over that may be done.

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

use crate::address::VirtAddr;
use crate::x86_64::{Registers, rflags};

/// Longest instruction in bytes.
const LONGEST: usize = 15;

/// The facts about a guest that a plan needs besides a vCPU's registers.
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
    /// `guest` is the guest's own TF afterwards.
    Resume { end: End, guest: bool },
    /// The page of the instruction is not there. The vCPU runs to the handler of the page
    /// fault, and comes back from that to an instruction that can be read.
    Fetch { handler: End },
    /// With TF: it cannot be told where the instruction ends, or nothing would stop the
    /// vCPU there. `guest` is the guest's own TF afterwards.
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

/// A vCPU in front of an instruction.
pub(super) struct Here<'a> {
    pub registers: &'a Registers,
    pub guest: &'a dyn Guest,
}

impl Here<'_> {
    pub fn trap(&self) -> Plan {
        Plan::Trap {
            guest: self.registers.rflags & rflags::TF != 0,
        }
    }

    /// The bytes at RIP.
    pub fn decode(&self) -> Result<Instruction, DecoderError> {
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
    pub fn read(&self, addr: u64, size: usize) -> Option<u64> {
        let mut bytes = [0; 8];
        let all = self.guest.read(VirtAddr(addr), bytes.get_mut(..size)?);
        all.then_some(u64::from_le_bytes(bytes))
    }
}
