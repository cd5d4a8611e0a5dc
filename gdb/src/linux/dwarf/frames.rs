//! `.debug_frame` of the kernel's unwind tables.

use std::ops::Range;

use gimli::write::{
    Address, CallFrameInstruction, CieId, CommonInformationEntry, DebugFrame, EndianVec, Error,
    Expression, FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian, Register, SectionId, X86_64};

use super::section::DebugSection;
use crate::linux::orc::{Base, Bp, Place, Row, Rule};

/// Most rows of one entry: gdb reads it from its beginning at each frame.
const MAX_ROWS: usize = 64;
/// Most bytes of code that an entry describes.
const MAX_LEN: u64 = 1 << 24;

/// All offsets that are in multiples of this: an address on the stack.
const WORD: i16 = 8;

/// Offsets in `struct pt_regs` (arch/x86/include/asm/ptrace.h).
const PT_REGS: [(Register, i32); 17] = [
    (X86_64::R15, 0),
    (X86_64::R14, 8),
    (X86_64::R13, 16),
    (X86_64::R12, 24),
    (X86_64::RBP, 32),
    (X86_64::RBX, 40),
    (X86_64::R11, 48),
    (X86_64::R10, 56),
    (X86_64::R9, 64),
    (X86_64::R8, 72),
    (X86_64::RAX, 80),
    (X86_64::RCX, 88),
    (X86_64::RDX, 96),
    (X86_64::RSI, 104),
    (X86_64::RDI, 112),
    (X86_64::RA, 128),
    (X86_64::RSP, 152),
];

/// The same of what the processor pushes.
const EXCEPTION: [(Register, i32); 2] = [(X86_64::RA, 0), (X86_64::RSP, 24)];

/// Registers that a caller has lost, as far as the kernel's tables tell.
const LOST: [Register; 14] = [
    X86_64::RAX,
    X86_64::RBX,
    X86_64::RCX,
    X86_64::RDX,
    X86_64::RSI,
    X86_64::RDI,
    X86_64::R8,
    X86_64::R9,
    X86_64::R10,
    X86_64::R11,
    X86_64::R12,
    X86_64::R13,
    X86_64::R14,
    X86_64::R15,
];

/// What all rows of an entry have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Unknown,
    End,
    Call,
    Registers,
    Exception,
}

/// Makes the section.
pub(crate) fn frames(rows: &[Row]) -> Result<DebugSection, Error> {
    let mut table = Table::new();
    let mut at = 0;
    while let Some(first) = rows.get(at) {
        let class_of_all = class(first);
        let same = rows[at..].iter().take(MAX_ROWS);
        let same =
            same.take_while(|row| class(row) == class_of_all && row.addr - first.addr < MAX_LEN);
        let next = at + same.count().max(1);
        if let Some(end) = rows.get(next) {
            let end = end.addr.min(first.addr.saturating_add(MAX_LEN));
            table.add(class_of_all, &rows[at..next], first.addr..end);
        }
        at = next;
    }
    table.write()
}

fn class(row: &Row) -> Class {
    match row.rule {
        Rule::Call(place, bp) if is_whole(place) && is_whole_bp(bp) => Class::Call,
        Rule::Registers(place) if is_whole(place) => Class::Registers,
        Rule::Exception(place) if is_whole(place) => Class::Exception,
        Rule::End => Class::End,
        _ => Class::Unknown,
    }
}

fn is_whole(place: Place) -> bool {
    let (Place::At(_, offset) | Place::BehindSp(offset) | Place::BehindBp(offset)) = place;
    offset % WORD == 0
}

fn is_whole_bp(bp: Bp) -> bool {
    match bp {
        Bp::AtPlace(offset) => offset % WORD == 0,
        Bp::AtItself(_) | Bp::Unchanged => true,
    }
}

struct Table {
    frames: FrameTable,
    call: CieId,
    end: CieId,
    registers: CieId,
    exception: CieId,
}

impl Table {
    fn new() -> Self {
        use CallFrameInstruction::{Cfa, Offset, SameValue, Undefined};
        let mut frames = FrameTable::default();
        // gdb takes the instruction that was interrupted as it is, not as behind a call,
        // and expects another stack, where it is told of a signal's frame.
        let mut add = |interrupted: bool, rules: Vec<CallFrameInstruction>| {
            let encoding = Encoding {
                format: Format::Dwarf32,
                version: 4,
                address_size: 8,
            };
            let mut cie = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
            cie.signal_trampoline = interrupted;
            cie.add_instruction(Cfa(X86_64::RSP, 8));
            for rule in rules {
                cie.add_instruction(rule);
            }
            frames.add_cie(cie)
        };
        let at = |places: &[(Register, i32)]| {
            let rules = places.iter().map(|&(register, at)| Offset(register, at));
            rules.collect::<Vec<_>>()
        };
        let mut call = vec![Offset(X86_64::RA, -8), SameValue(X86_64::RBP)];
        call.extend(LOST.map(Undefined));
        let call = add(false, call);
        let end = add(false, vec![Undefined(X86_64::RA)]);
        let registers = add(true, at(&PT_REGS));
        let exception = add(true, at(&EXCEPTION));
        Self {
            frames,
            call,
            end,
            registers,
            exception,
        }
    }

    fn add(&mut self, class: Class, rows: &[Row], code: Range<u64>) {
        let cie = match class {
            Class::Unknown => return,
            Class::End => self.end,
            Class::Call => self.call,
            Class::Registers => self.registers,
            Class::Exception => self.exception,
        };
        if code.is_empty() {
            return;
        }
        let len = (code.end - code.start) as u32;
        let mut frame = FrameDescriptionEntry::new(Address::Constant(code.start), len);
        let mut last = (None, Bp::Unchanged);
        for row in rows {
            let offset = (row.addr - code.start) as u32;
            let (place, bp) = match row.rule {
                Rule::Call(place, bp) => (place, bp),
                Rule::Registers(place) | Rule::Exception(place) => (place, Bp::Unchanged),
                Rule::Unknown | Rule::End => continue,
            };
            if last.0 != Some(place) {
                frame.add_instruction(offset, frame_address(place));
            }
            if last.1 != bp {
                frame.add_instruction(offset, caller_bp(bp));
            }
            last = (Some(place), bp);
        }
        self.frames.add_fde(cie, frame);
    }

    fn write(self) -> Result<DebugSection, Error> {
        let mut section = DebugFrame(EndianVec::new(LittleEndian));
        self.frames.write_debug_frame(&mut section)?;
        Ok(DebugSection {
            name: SectionId::DebugFrame.name(),
            data: section.0.into_vec(),
        })
    }
}

/// The place is the canonical frame address of a call, and the address of the registers
/// otherwise.
fn frame_address(place: Place) -> CallFrameInstruction {
    let behind = |register, before: i16, after: i16| {
        let mut address = Expression::new();
        address.op_breg(register, before.into());
        address.op_deref();
        if after != 0 {
            address.op_consts(after.into());
            address.op(gimli::constants::DW_OP_plus);
        }
        CallFrameInstruction::CfaExpression(address)
    };
    match place {
        Place::At(base, offset) => CallFrameInstruction::Cfa(register(base), offset.into()),
        Place::BehindSp(offset) => behind(X86_64::RSP, 0, offset),
        Place::BehindBp(offset) => behind(X86_64::RBP, offset, 0),
    }
}

fn caller_bp(bp: Bp) -> CallFrameInstruction {
    match bp {
        Bp::Unchanged => CallFrameInstruction::SameValue(X86_64::RBP),
        Bp::AtPlace(offset) => CallFrameInstruction::Offset(X86_64::RBP, offset.into()),
        Bp::AtItself(offset) => {
            let mut address = Expression::new();
            address.op_breg(X86_64::RBP, offset.into());
            CallFrameInstruction::Expression(X86_64::RBP, address)
        }
    }
}

fn register(base: Base) -> Register {
    match base {
        Base::Sp => X86_64::RSP,
        Base::Bp => X86_64::RBP,
        Base::Ax => X86_64::RAX,
        Base::Dx => X86_64::RDX,
        Base::Di => X86_64::RDI,
        Base::R10 => X86_64::R10,
        Base::R13 => X86_64::R13,
    }
}
