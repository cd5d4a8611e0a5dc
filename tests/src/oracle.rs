//! Where a single step may end, by the disassembly alone.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use crate::rsp::Rsp;

const TRAP_FLAG: u64 = 0x100;
/// Longest instruction in bytes.
const LONGEST: usize = 15;

/// A vCPU's general registers, RIP and flags, as one packet has them.
#[derive(Clone, Debug)]
pub struct Registers {
    pub general: [u64; 16],
    pub rip: u64,
    pub flags: u64,
    pub cs: u64,
}

impl Registers {
    pub fn of(client: &mut Rsp) -> Self {
        let bytes = client.registers();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        Self {
            general: std::array::from_fn(|n| word(8 * n)),
            rip: word(128),
            flags: half(136).into(),
            cs: half(140).into(),
        }
    }

    pub fn ring(&self) -> u64 {
        self.cs & 3
    }

    /// gdb's order is not the processor's.
    fn value(&self, register: Register) -> Option<u64> {
        const GDB: [usize; 16] = [0, 2, 3, 1, 7, 6, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15];
        let full = register.full_register();
        match register {
            Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
            // Their bases are not in the packet.
            Register::FS | Register::GS => None,
            _ if full.is_gpr64() => Some(self.general[GDB[full.number()]]),
            _ => None,
        }
    }

    fn rsp(&self) -> u64 {
        self.general[7]
    }
}

/// What is known of a step before it is made.
#[derive(Clone, Debug)]
pub struct Step {
    pub before: Registers,
    /// `None` where nothing can be read.
    pub instruction: Option<Instruction>,
    /// `None` where the disassembly does not tell.
    pub ends: Option<Vec<u64>>,
}

impl Step {
    /// Looks at the stopped thread that is selected. `system_calls` is where they enter.
    pub fn ahead(client: &mut Rsp, system_calls: u64) -> Self {
        let before = Registers::of(client);
        let instruction = decode(client, before.rip);
        let ends = instruction.and_then(|it| ends(client, &before, &it, system_calls));
        Self {
            before,
            instruction,
            ends,
        }
    }

    /// What is wrong with where it has ended.
    pub fn fault(&self, client: &mut Rsp) -> Option<String> {
        let after = Registers::of(client);
        let what = || format!("{:#x?} at {:#x}", self.instruction, self.before.rip);
        if let Some(ends) = &self.ends
            && !ends.contains(&after.rip)
        {
            let place = after.rip;
            return Some(format!("{} ended at {place:#x}, not in {ends:x?}", what()));
        }
        let saved = match self.instruction.map(|it| it.mnemonic()) {
            Some(Mnemonic::Pushf | Mnemonic::Pushfq) => word(client, after.rsp()),
            // R11.
            Some(Mnemonic::Syscall) => Some(after.general[11]),
            _ => None,
        };
        let leaks = (after.flags | saved.unwrap_or(0)) & TRAP_FLAG != 0;
        // The guest's own.
        let own = self.before.flags & TRAP_FLAG != 0
            || matches!(
                self.instruction.map(|it| it.mnemonic()),
                Some(Mnemonic::Popfq | Mnemonic::Iretq | Mnemonic::Sysretq)
            );
        (leaks && !own).then(|| format!("{} left a trap flag", what()))
    }

    /// Whether the program may never get behind it: it faults, and ends or goes elsewhere.
    pub fn may_not_end(&self) -> bool {
        self.before.ring() == 3
    }
}

fn decode(client: &mut Rsp, rip: u64) -> Option<Instruction> {
    let bytes = client.memory(rip, LONGEST);
    let mut decoder = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

fn word(client: &mut Rsp, addr: u64) -> Option<u64> {
    let bytes = client.memory(addr, 8);
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

fn ends(
    client: &mut Rsp,
    before: &Registers,
    instruction: &Instruction,
    system_calls: u64,
) -> Option<Vec<u64>> {
    let next = instruction.next_ip();
    let stack = |client: &mut Rsp| word(client, before.rsp());
    Some(match instruction.mnemonic() {
        Mnemonic::Syscall => vec![system_calls],
        Mnemonic::Sysretq => vec![before.general[2]],
        Mnemonic::Iretq | Mnemonic::Ret => vec![stack(client)?],
        // Nothing comes between it and the next instruction.
        Mnemonic::Mov if instruction.op0_register() == Register::SS => {
            vec![next, decode(client, next)?.next_ip()]
        }
        _ => match instruction.flow_control() {
            FlowControl::Next if instruction.is_string_instruction() => {
                vec![next, before.rip]
            }
            FlowControl::Next => vec![next],
            FlowControl::ConditionalBranch => vec![next, instruction.near_branch_target()],
            FlowControl::UnconditionalBranch => vec![instruction.near_branch_target()],
            FlowControl::Call if instruction.op0_kind() == OpKind::NearBranch64 => {
                vec![instruction.near_branch_target()]
            }
            FlowControl::Call => vec![next],
            FlowControl::IndirectBranch | FlowControl::IndirectCall => {
                vec![operand(client, before, instruction)?]
            }
            // int, int3 and ud2: some handler.
            _ => return None,
        },
    })
}

fn operand(client: &mut Rsp, before: &Registers, instruction: &Instruction) -> Option<u64> {
    if instruction.op0_kind() == OpKind::Register {
        return before.value(instruction.op0_register());
    }
    let at = instruction.virtual_address(0, 0, |register, _, _| before.value(register))?;
    word(client, at)
}
