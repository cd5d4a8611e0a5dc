//! The one compile unit that describes a kernel, or a module.

use std::ops::Range;

use gimli::constants::*;
use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, Error, Expression, Location, LocationList,
    RangeList, Sections, UnitEntryId,
};
use gimli::{Encoding, Format, LittleEndian, Register};

use super::section::DebugSection;

/// Most entries: each takes some hundred bytes while they are made. Debian's kernel has
/// 390,000.
const MAX_ENTRIES: usize = 1 << 20;

pub(super) struct Unit {
    dwarf: DwarfUnit,
    /// Where its code begins.
    base: u64,
    has_base: bool,
}

/// An entry of it.
pub(super) type Entry = UnitEntryId;

impl Unit {
    pub fn new(name: &str) -> Self {
        let mut dwarf = DwarfUnit::new(Encoding {
            format: Format::Dwarf32,
            version: 5,
            address_size: 8,
        });
        let name = dwarf.strings.add(name);
        let root = dwarf.unit.root();
        let root = dwarf.unit.get_mut(root);
        root.set(DW_AT_language, AttributeValue::Language(DW_LANG_C11));
        root.set(DW_AT_name, AttributeValue::StringRef(name));
        Self {
            dwarf,
            base: 0,
            has_base: false,
        }
    }

    /// Says where its code is.
    pub fn cover(&mut self, code: &[Range<u64>]) {
        let Some(start) = code.iter().map(|piece| piece.start).min() else {
            return;
        };
        (self.base, self.has_base) = (start, true);
        let root = self.root();
        if let [piece] = code {
            return self.code(root, piece.clone());
        }
        let pieces = code.iter().map(|piece| gimli::write::Range::StartLength {
            begin: Address::Constant(piece.start),
            length: piece.end - piece.start,
        });
        let list = self.dwarf.unit.ranges.add(RangeList(pieces.collect()));
        self.set(root, DW_AT_low_pc, address(start));
        self.set(root, DW_AT_ranges, AttributeValue::RangeListRef(list));
    }

    pub fn root(&self) -> Entry {
        self.dwarf.unit.root()
    }

    /// Whether it takes no more entries.
    pub fn is_full(&self) -> bool {
        self.dwarf.unit.count() >= MAX_ENTRIES
    }

    /// An entry to refer to before it is there. It must be placed.
    pub fn reserve(&mut self) -> Entry {
        self.dwarf.unit.reserve()
    }

    /// Puts a reserved entry into the unit.
    pub fn place(&mut self, entry: Entry, tag: DwTag) {
        let root = self.root();
        self.dwarf.unit.add_reserved(entry, root, tag);
    }

    pub fn add(&mut self, parent: Entry, tag: DwTag) -> Entry {
        self.dwarf.unit.add(parent, tag)
    }

    pub fn set(&mut self, entry: Entry, what: DwAt, value: AttributeValue) {
        self.dwarf.unit.get_mut(entry).set(what, value);
    }

    /// Names an entry, if there is a name.
    pub fn name(&mut self, entry: Entry, name: &[u8]) {
        if !name.is_empty() {
            let name = self.dwarf.strings.add(name);
            self.set(entry, DW_AT_name, AttributeValue::StringRef(name));
        }
    }

    /// Gives an entry a type, if it is not `void`.
    pub fn of_type(&mut self, entry: Entry, of: Option<Entry>) {
        if let Some(of) = of {
            self.set(entry, DW_AT_type, AttributeValue::UnitRef(of));
        }
    }

    pub fn size(&mut self, entry: Entry, bytes: u32) {
        let bytes = AttributeValue::Udata(bytes.into());
        self.set(entry, DW_AT_byte_size, bytes);
    }

    pub fn flag(&mut self, entry: Entry, what: DwAt) {
        self.set(entry, what, AttributeValue::FlagPresent);
    }

    /// Code of the unit's.
    pub fn code(&mut self, entry: Entry, code: Range<u64>) {
        self.set(entry, DW_AT_low_pc, address(code.start));
        let len = AttributeValue::Udata(code.end - code.start);
        self.set(entry, DW_AT_high_pc, len);
    }

    /// Makes a function one that others have inline.
    pub fn inline(&mut self, entry: Entry) {
        let value = AttributeValue::Inline(DW_INL_inlined);
        self.set(entry, DW_AT_inline, value);
    }

    /// Code that is that of such a function.
    pub fn instance_of(&mut self, entry: Entry, function: Entry) {
        let value = AttributeValue::UnitRef(function);
        self.set(entry, DW_AT_abstract_origin, value);
        // gdb wants to know from where, and takes 0 for unknown.
        for place in [DW_AT_call_file, DW_AT_call_line] {
            self.set(entry, place, AttributeValue::Udata(0));
        }
    }

    /// A place in memory.
    pub fn at(&mut self, entry: Entry, addr: u64) {
        let mut place = Expression::new();
        place.op_addr(Address::Constant(addr));
        self.set(entry, DW_AT_location, AttributeValue::Exprloc(place));
    }

    /// A register that has the value while the instruction pointer is in `code`, which
    /// is in the unit's.
    pub fn in_register(&mut self, entry: Entry, register: Register, code: Range<u64>) {
        let mut data = Expression::new();
        data.op_reg(register);
        let list = LocationList(vec![Location::OffsetPair {
            begin: code.start.wrapping_sub(self.base),
            end: code.end.wrapping_sub(self.base),
            data,
        }]);
        if self.has_base && !code.is_empty() {
            let list = self.dwarf.unit.locations.add(list);
            self.set(entry, DW_AT_location, AttributeValue::LocationListRef(list));
        }
    }

    /// Its sections.
    pub fn write(mut self) -> Result<Vec<DebugSection>, Error> {
        let mut sections = Sections::new(EndianVec::new(LittleEndian));
        self.dwarf.write(&mut sections)?;
        let mut written = Vec::new();
        sections.for_each_mut(|id, section| {
            let data = section.take();
            if !data.is_empty() {
                let name = id.name();
                written.push(DebugSection { name, data });
            }
            Ok::<_, Error>(())
        })?;
        Ok(written)
    }
}

fn address(addr: u64) -> AttributeValue {
    AttributeValue::Address(Address::Constant(addr))
}
