//! The kernel's unwind tables (CONFIG_UNWINDER_ORC): how the caller's frame is found
//! from each instruction.
//!
//! Two tables of the same length: addresses, each a signed distance from its own place,
//! and entries of 6 bytes. Format: arch/x86/include/asm/orc_types.h, and for what they
//! mean unwind_next_frame() in arch/x86/kernel/unwind_orc.c of Linux. Its fields have
//! moved; the kernel's own types tell where they are. Its registers have got other numbers;
//! the table tells which.

use std::ops::Range;

use super::btf::Btf;
use super::btf::types::Type;
use super::memory::Memory;
use super::not_found::Version;
use super::symbols::Symbols;

/// Most rows of a kernel; Debian's has 370,000.
const MAX_ROWS: u64 = 1 << 20;
/// Length of an entry in bytes.
const ENTRY: usize = 6;
const ENTRY_NAME: &str = "orc_entry";

/// How a frame is unwound from an instruction on, up to the next row's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub addr: u64,
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Nothing is known.
    Unknown,
    /// There is no caller.
    End,
    /// The return address is below this place, and the caller's RBP where this says.
    Call(Place, Bp),
    /// A `struct pt_regs` is there.
    Registers(Place),
    /// What the processor pushes at an exception is there.
    Exception(Place),
}

/// A place on the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// An offset from what a register holds.
    At(Base, i16),
    /// An offset from what is at RSP.
    BehindSp(i16),
    /// What is at an offset from RBP.
    BehindBp(i16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Sp,
    Bp,
    Ax,
    Dx,
    Di,
    R10,
    R13,
}

/// Where the caller's RBP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bp {
    Unchanged,
    /// An offset from the place that the rule tells.
    AtPlace(i16),
    /// An offset from RBP.
    AtItself(i16),
}

/// ORC_REG_*: what a place is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reg {
    Undefined,
    /// The place that the rule tells.
    PrevSp,
    Of(Base),
    /// What is at an offset from RBP, and what is at RSP.
    BpIndirect,
    SpIndirect,
}

/// Their numbers, which no type of the kernel tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbering(&'static [Reg]);

impl Numbering {
    const FIRST: Self = Self(&[
        Reg::Undefined,
        Reg::PrevSp,
        Reg::Of(Base::Dx),
        Reg::Of(Base::Di),
        Reg::Of(Base::Bp),
        Reg::Of(Base::Sp),
        Reg::Of(Base::R10),
        Reg::Of(Base::R13),
        Reg::BpIndirect,
        Reg::SpIndirect,
    ]);
    /// Seen in Linux 7.2.
    const SECOND: Self = Self(&[
        Reg::Undefined,
        Reg::Of(Base::Ax),
        Reg::Of(Base::Dx),
        Reg::Of(Base::Sp),
        Reg::Of(Base::Bp),
        Reg::Of(Base::Di),
        Reg::Of(Base::R10),
        Reg::Of(Base::R13),
        Reg::PrevSp,
        Reg::SpIndirect,
        Reg::BpIndirect,
    ]);

    /// The one by which most functions begin with the caller's frame at RSP + 8.
    fn of(entries: &[u64], layout: Layout) -> Self {
        let begins = |numbering: Self| {
            let is_begin = |entry: &&u64| {
                let reg = numbering.reg(layout.sp_reg.of(**entry));
                **entry as u16 == 8 && reg == Some(Reg::Of(Base::Sp))
            };
            entries.iter().filter(is_begin).count()
        };
        match begins(Self::SECOND) > begins(Self::FIRST) {
            true => Self::SECOND,
            false => Self::FIRST,
        }
    }

    fn reg(self, number: u64) -> Option<Reg> {
        self.0.get(number as usize).copied()
    }
}

/// The bits of an entry, and what they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    sp_reg: Field,
    bp_reg: Field,
    kind: Field,
    /// Up to Linux 6.3; later this is a kind.
    end: Option<Field>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    bit: u32,
    bits: u32,
}

impl Field {
    fn of(self, entry: u64) -> u64 {
        entry >> self.bit & ((1 << self.bits) - 1)
    }
}

impl Layout {
    fn of_types(btf: &Btf) -> Option<Self> {
        let Type::Composite(entry) = btf.get(btf.structure_number(ENTRY_NAME)?)? else {
            return None;
        };
        let field = |name: &str| {
            let mut members = entry.members();
            let member = members.find(|member| member.name == name.as_bytes())?;
            let (bit, bits) = (member.bit_offset, member.bits?);
            let fits = bits < 16 && bit <= 48 - bits;
            fits.then_some(Field { bit, bits })
        };
        Some(Self {
            sp_reg: field("sp_reg")?,
            bp_reg: field("bp_reg")?,
            kind: field("type")?,
            end: field("end"),
        })
    }

    /// That of a kernel without types.
    fn of_version(version: Version) -> Self {
        let (kind, end) = match version {
            _ if version >= Version(6, 4) => (3, None),
            Version(6, 3) => (2, Some(43)),
            _ => (2, Some(42)),
        };
        Self {
            sp_reg: Field { bit: 32, bits: 4 },
            bp_reg: Field { bit: 36, bits: 4 },
            kind: Field {
                bit: 40,
                bits: kind,
            },
            end: end.map(|bit| Field { bit, bits: 1 }),
        }
    }

    fn rule(&self, entry: u64, numbering: Numbering, version: Version) -> Rule {
        let (sp_offset, bp_offset) = (entry as u16 as i16, (entry >> 16) as u16 as i16);
        let kind = match self.end {
            Some(_) => self.kind.of(entry) + 2,
            None => self.kind.of(entry),
        };
        let sp_reg = numbering.reg(self.sp_reg.of(entry));
        let bp_reg = numbering.reg(self.bp_reg.of(entry));
        let ends = match self.end {
            Some(end) => end.of(entry) == 1 && sp_reg == Some(Reg::Undefined),
            None => kind == 1,
        };
        if ends {
            return Rule::End;
        }
        let (Some(place), Some(bp)) = (
            sp_reg.and_then(|reg| place(reg, sp_offset, version)),
            bp_reg.and_then(|reg| bp(reg, bp_offset)),
        ) else {
            return Rule::Unknown;
        };
        match kind {
            2 => Rule::Call(place, bp),
            3 => Rule::Registers(place),
            4 => Rule::Exception(place),
            _ => Rule::Unknown,
        }
    }
}

fn place(sp_reg: Reg, offset: i16, version: Version) -> Option<Place> {
    Some(match sp_reg {
        Reg::Of(base @ (Base::Sp | Base::Bp)) => Place::At(base, offset),
        // Without an offset.
        Reg::Of(base) => Place::At(base, 0),
        Reg::BpIndirect => Place::BehindBp(offset),
        Reg::SpIndirect if version >= Version(5, 12) => Place::BehindSp(offset),
        // Before, the offset was that of the pointer.
        Reg::SpIndirect | Reg::Undefined | Reg::PrevSp => return None,
    })
}

fn bp(bp_reg: Reg, offset: i16) -> Option<Bp> {
    match bp_reg {
        Reg::Undefined => Some(Bp::Unchanged),
        Reg::PrevSp => Some(Bp::AtPlace(offset)),
        Reg::Of(Base::Bp) => Some(Bp::AtItself(offset)),
        _ => None,
    }
}

/// Where the two tables are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// That of the addresses.
    pub places: u64,
    pub entries: u64,
    /// How many there are of each.
    pub count: u64,
}

impl Table {
    /// The kernel's own.
    pub fn of_kernel(symbols: &Symbols) -> Option<Self> {
        let places = symbols.get("__start_orc_unwind_ip")?;
        let end = symbols.get("__stop_orc_unwind_ip")?;
        Some(Self {
            places,
            entries: symbols.get("__start_orc_unwind")?,
            count: end.checked_sub(places)? / 4,
        })
    }
}

/// The rows, by address; none if there are none, or some that make no sense. `btf` has
/// the kernel's types.
pub(crate) fn rows(
    table: Table,
    memory: &Memory<'_>,
    btf: Option<&Btf>,
    version: Version,
) -> Option<Vec<Row>> {
    if table.count > MAX_ROWS {
        return None;
    }
    let count = table.count as usize;
    let distances = memory.bytes(table.places, 4 * count).ok()?;
    let entries = memory.bytes(table.entries, ENTRY * count).ok()?;
    let layout = match btf {
        Some(btf) => Layout::of_types(btf)?,
        None => Layout::of_version(version),
    };
    let entries: Vec<u64> = entries.chunks_exact(ENTRY).map(word).collect();
    let numbering = Numbering::of(&entries, layout);
    let rows = distances.as_chunks().0.iter().zip(&entries);
    let rows: Vec<Row> = (table.places..)
        .step_by(4)
        .zip(rows)
        .map(|(place, (distance, entry))| Row {
            addr: place.wrapping_add_signed(i32::from_le_bytes(*distance).into()),
            rule: layout.rule(*entry, numbering, version),
        })
        .collect();
    rows.is_sorted_by_key(|row| row.addr).then_some(rows)
}

fn word(entry: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..ENTRY].copy_from_slice(entry);
    u64::from_le_bytes(bytes)
}

/// Those of these pieces of memory alone; the last one of each piece ends with it.
pub(crate) fn rows_in(rows: Vec<Row>, memory: &[Range<u64>]) -> Vec<Row> {
    let ends = memory.iter().map(|part| Row {
        addr: part.end,
        rule: Rule::Unknown,
    });
    let is_inside = |row: &Row| memory.iter().any(|part| part.contains(&row.addr));
    let mut kept: Vec<Row> = ends.collect();
    // Another piece may begin where one ends: its row counts, which comes behind.
    kept.extend(rows.into_iter().filter(is_inside));
    kept.sort_by_key(|row| row.addr);
    kept
}

/// The code that runs while functions called from it are on another stack, by address.
pub(crate) fn stack_switches(rows: &[Row]) -> Vec<Range<u64>> {
    let pairs = rows.windows(2);
    let switches = pairs.filter(|pair| matches!(pair[0].rule, Rule::Call(Place::BehindSp(_), _)));
    switches.map(|pair| pair[0].addr..pair[1].addr).collect()
}

#[cfg(test)]
#[path = "orc_test.rs"]
mod tests;
