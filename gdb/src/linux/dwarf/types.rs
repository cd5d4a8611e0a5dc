//! Types, each with an entry that others refer to.

use gimli::constants::*;
use gimli::write::AttributeValue;

use super::needed::{Need, Needed};
use super::unit::{Entry, Unit};
use crate::linux::btf::Btf;
use crate::linux::btf::types::{Composite, Enum, Int, Number, Parameter, Prototype, Type};

/// Most steps from a type to one that is not made of another: arrays, pointers,
/// qualifiers and typedefs of each other must not go round in circles in gdb.
const MAX_DEPTH: u32 = 32;

/// The types of one kernel, or of one module with what it needs of the kernel's, and
/// their entries.
pub(super) struct Types<'a> {
    pub btf: &'a Btf,
    /// By number.
    entries: Vec<Option<Entry>>,
}

impl<'a> Types<'a> {
    pub fn add(unit: &mut Unit, btf: &'a Btf) -> Self {
        let mut types = Self {
            btf,
            entries: vec![None],
        };
        let needed = Needed::of(btf);
        let mut reserved = Vec::new();
        for number in 1..=*btf.own().end() {
            let need = needed.need(number).filter(|_| has_entry(btf, number));
            let entry = need.filter(|_| !unit.is_full()).map(|_| unit.reserve());
            reserved.extend(entry.map(|entry| (number, entry)));
            types.entries.push(entry);
        }
        for (number, entry) in reserved {
            match (btf.get(number), needed.need(number)) {
                (Some(Type::Composite(composite)), Some(Need::Name))
                    if !composite.name.is_empty() =>
                {
                    declare(unit, entry, composite.name, composite.is_union);
                }
                (Some(described), _) => types.describe(unit, entry, described),
                (None, _) => {}
            }
        }
        types
    }

    /// The entry of a type; `None` of `void`, and of one that makes no sense.
    pub fn entry(&self, mut number: Number) -> Option<Entry> {
        for _ in 0..MAX_DEPTH {
            match self.btf.get(number)? {
                Type::Tagged(of) => number = of,
                _ => return *self.entries.get(number as usize)?,
            }
        }
        None
    }

    fn describe(&self, unit: &mut Unit, entry: Entry, described: Type<'_>) {
        match described {
            Type::Int(int) => describe_int(unit, entry, &int),
            Type::Float { name, size } => base(unit, entry, name, size, DW_ATE_float),
            Type::Pointer(of) => self.derived(unit, entry, DW_TAG_pointer_type, of),
            Type::Const(of) => self.derived(unit, entry, DW_TAG_const_type, of),
            Type::Volatile(of) => self.derived(unit, entry, DW_TAG_volatile_type, of),
            Type::Restrict(of) => self.derived(unit, entry, DW_TAG_restrict_type, of),
            Type::Typedef { name, of } => {
                self.derived(unit, entry, DW_TAG_typedef, of);
                unit.name(entry, name);
            }
            Type::Array { element, count } => {
                self.derived(unit, entry, DW_TAG_array_type, element);
                let range = unit.add(entry, DW_TAG_subrange_type);
                // A flexible array has none.
                if count != 0 {
                    let count = AttributeValue::Udata(count.into());
                    unit.set(range, DW_AT_count, count);
                }
            }
            Type::Composite(composite) => self.describe_composite(unit, entry, &composite),
            Type::Forward { name, is_union } => declare(unit, entry, name, is_union),
            Type::Enum(values) => describe_enum(unit, entry, &values),
            Type::Prototype(prototype) => {
                unit.place(entry, DW_TAG_subroutine_type);
                self.describe_prototype(unit, entry, &prototype);
            }
            // These have no entry.
            Type::Tagged(_) | Type::Function { .. } | Type::Variable { .. } | Type::Note => {}
        }
    }

    /// A type that is made of another.
    fn derived(&self, unit: &mut Unit, entry: Entry, tag: DwTag, of: Number) {
        unit.place(entry, tag);
        unit.of_type(entry, self.entry(of));
    }

    fn describe_composite(&self, unit: &mut Unit, entry: Entry, composite: &Composite<'_>) {
        unit.place(entry, composite_tag(composite.is_union));
        unit.name(entry, composite.name);
        unit.size(entry, composite.size);
        for member in composite.members() {
            if unit.is_full() {
                return;
            }
            let child = unit.add(entry, DW_TAG_member);
            unit.name(child, member.name);
            unit.of_type(child, self.entry(member.of));
            let (what, place) = match member.bits {
                Some(_) => (DW_AT_data_bit_offset, member.bit_offset),
                None => (DW_AT_data_member_location, member.bit_offset / 8),
            };
            unit.set(child, what, AttributeValue::Udata(place.into()));
            if let Some(bits) = member.bits {
                unit.set(child, DW_AT_bit_size, AttributeValue::Udata(bits.into()));
            }
        }
    }

    /// Result and parameters, of a function or of its type. The entries of the
    /// parameters are returned, with their types.
    pub fn describe_prototype(
        &self,
        unit: &mut Unit,
        entry: Entry,
        prototype: &Prototype<'_>,
    ) -> Vec<(Entry, Number)> {
        unit.flag(entry, DW_AT_prototyped);
        unit.of_type(entry, self.entry(prototype.result));
        let mut parameters = Vec::new();
        for parameter in prototype.parameters() {
            match parameter {
                _ if unit.is_full() => break,
                Parameter::Variadic => {
                    unit.add(entry, DW_TAG_unspecified_parameters);
                }
                Parameter::Named { name, of } => {
                    let child = unit.add(entry, DW_TAG_formal_parameter);
                    unit.name(child, name);
                    unit.of_type(child, self.entry(of));
                    parameters.push((child, of));
                }
            }
        }
        parameters
    }
}

/// Whether a type has an entry of its own: it is one, and its way to what it is made of
/// has an end.
fn has_entry(btf: &Btf, number: Number) -> bool {
    let mut at = number;
    for depth in 0..MAX_DEPTH {
        at = match btf.get(at) {
            Some(Type::Tagged(_)) if depth == 0 => return false,
            Some(Type::Function { .. } | Type::Variable { .. } | Type::Note) => return false,
            Some(Type::Typedef { of, .. } | Type::Pointer(of) | Type::Tagged(of)) => of,
            Some(Type::Const(of) | Type::Volatile(of) | Type::Restrict(of)) => of,
            Some(Type::Array { element, .. }) => element,
            Some(Type::Prototype(prototype)) => prototype.result,
            Some(_) => return true,
            None => return at == 0,
        };
    }
    false
}

/// A structure or a union that gdb has to look for by its name.
fn declare(unit: &mut Unit, entry: Entry, name: &[u8], is_union: bool) {
    unit.place(entry, composite_tag(is_union));
    unit.name(entry, name);
    unit.flag(entry, DW_AT_declaration);
}

fn composite_tag(is_union: bool) -> DwTag {
    match is_union {
        true => DW_TAG_union_type,
        false => DW_TAG_structure_type,
    }
}

fn describe_int(unit: &mut Unit, entry: Entry, int: &Int<'_>) {
    // BTF does not tell which integers are characters.
    let is_char = int.size == 1 && int.name.ends_with(b"char");
    let encoding = match (int.is_bool, is_char, int.is_signed) {
        (true, ..) => DW_ATE_boolean,
        (_, true, _) if int.name == b"unsigned char" => DW_ATE_unsigned_char,
        (_, true, _) => DW_ATE_signed_char,
        (.., true) => DW_ATE_signed,
        (.., false) => DW_ATE_unsigned,
    };
    base(unit, entry, int.name, int.size, encoding);
}

fn base(unit: &mut Unit, entry: Entry, name: &[u8], size: u32, encoding: DwAte) {
    unit.place(entry, DW_TAG_base_type);
    unit.name(entry, name);
    unit.size(entry, size);
    let encoding = AttributeValue::Encoding(encoding);
    unit.set(entry, DW_AT_encoding, encoding);
}

fn describe_enum(unit: &mut Unit, entry: Entry, described: &Enum<'_>) {
    unit.place(entry, DW_TAG_enumeration_type);
    unit.name(entry, described.name);
    unit.size(entry, described.size);
    for (name, value) in described.values() {
        if unit.is_full() {
            return;
        }
        let child = unit.add(entry, DW_TAG_enumerator);
        unit.name(child, name);
        let value = match described.is_signed {
            true => AttributeValue::Sdata(value),
            false => AttributeValue::Udata(value as u64),
        };
        unit.set(child, DW_AT_const_value, value);
    }
}
