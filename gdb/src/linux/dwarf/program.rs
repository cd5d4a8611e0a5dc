//! Functions and variables.

use std::collections::HashSet;
use std::ops::Range;

use gimli::constants::*;
use gimli::{Register, X86_64};

use super::globals::{self, GLOBALS};
use super::types::Types;
use super::unit::{Entry, Unit};
use crate::linux::btf::types::{Number, Type};
use crate::linux::symbols::Symbols;

/// What is known of a kernel's code and data beside types, or of a module's.
pub(crate) struct Code<'a> {
    /// What gdb calls all of it: no name that C has.
    pub name: &'a str,
    pub symbols: &'a Symbols,
    /// The first address at which a function's arguments may no longer be where its caller
    /// has put them, for the function at an address.
    pub arguments_end: &'a dyn Fn(u64) -> u64,
    /// Code that calls on another stack, by address.
    pub switches: &'a [Range<u64>],
    /// The memory that the code is in, if it does not lie in one piece.
    pub memory: Option<&'a [Range<u64>]>,
}

impl Code<'_> {
    /// The code of the function of this name, if there is but one.
    fn function(&self, name: &[u8]) -> Option<Range<u64>> {
        let code = self.symbols.function(name)?;
        let Some(memory) = self.memory else {
            return Some(code);
        };
        let memory = memory.iter().find(|part| part.contains(&code.start))?;
        Some(code.start..code.end.min(memory.end))
    }

    /// Where the code of these functions is.
    fn places(&self, functions: &[Function<'_>]) -> Vec<Range<u64>> {
        let start = functions.iter().map(|function| function.code.start).min();
        let end = functions.iter().map(|function| function.code.end).max();
        match (self.memory, start, end) {
            (Some(memory), Some(_), Some(_)) => memory.to_vec(),
            (None, Some(start), Some(end)) => std::iter::once(start..end).collect(),
            _ => Vec::new(),
        }
    }
}

/// The name of the code that calls on another stack: it is inline in Linux too
/// (arch/x86/include/asm/irq_stack.h).
const SWITCH: &[u8] = b"call_on_stack";

/// Where the first arguments are (System V ABI of x86-64, 3.2.3).
const ARGUMENTS: [Register; 6] = [
    X86_64::RDI,
    X86_64::RSI,
    X86_64::RDX,
    X86_64::RCX,
    X86_64::R8,
    X86_64::R9,
];

/// A function that has types.
struct Function<'a> {
    name: &'a [u8],
    prototype: Number,
    code: Range<u64>,
}

/// Adds the functions whose address is beyond doubt, and the variables.
pub(super) fn add(unit: &mut Unit, types: &Types<'_>, code: &Code<'_>) {
    let functions = functions(types, code);
    unit.cover(&code.places(&functions));
    let root = unit.root();
    let switch = unit.add(root, DW_TAG_subprogram);
    unit.name(switch, SWITCH);
    unit.inline(switch);
    for function in functions {
        if let Some(entry) = add_function(unit, types, &function, code) {
            add_switches(unit, entry, switch, switches_in(code, &function));
        }
    }
    add_variables(unit, types, code.symbols);
}

/// gdb takes a caller on another stack for a fault, unless the code between is inline.
fn add_switches(unit: &mut Unit, function: Entry, switch: Entry, places: &[Range<u64>]) {
    for place in places {
        if unit.is_full() {
            return;
        }
        let entry = unit.add(function, DW_TAG_inlined_subroutine);
        unit.instance_of(entry, switch);
        unit.code(entry, place.clone());
    }
}

fn switches_in<'a>(code: &Code<'a>, function: &Function<'_>) -> &'a [Range<u64>] {
    let Range { start, end } = function.code;
    let first = code.switches.partition_point(|place| place.start < start);
    let behind = code.switches.partition_point(|place| place.end <= end);
    code.switches.get(first..behind).unwrap_or_default()
}

fn functions<'a>(types: &Types<'a>, known: &Code<'_>) -> Vec<Function<'a>> {
    let mut seen = HashSet::new();
    let described = types
        .btf
        .own()
        .filter_map(|number| match types.btf.get(number)? {
            Type::Function { name, prototype } => Some((name, prototype)),
            _ => None,
        });
    let placed = described.filter_map(|(name, prototype)| {
        let code = known.function(name)?;
        // One of several names is enough for gdb, which has all of them as symbols.
        seen.insert(code.start).then_some(Function {
            name,
            prototype,
            code,
        })
    });
    placed.collect()
}

fn add_function(
    unit: &mut Unit,
    types: &Types<'_>,
    function: &Function<'_>,
    known: &Code<'_>,
) -> Option<Entry> {
    let Some(Type::Prototype(prototype)) = types.btf.get(function.prototype) else {
        return None;
    };
    if unit.is_full() {
        return None;
    }
    let (root, code) = (unit.root(), function.code.clone());
    let entry = unit.add(root, DW_TAG_subprogram);
    unit.name(entry, function.name);
    unit.flag(entry, DW_AT_external);
    unit.code(entry, code.clone());
    let parameters = types.describe_prototype(unit, entry, &prototype);
    let end = (known.arguments_end)(code.start).min(code.end);
    let in_registers = parameters
        .iter()
        .take_while(|(_, of)| is_in_register(types, *of));
    for ((parameter, _), register) in in_registers.zip(ARGUMENTS) {
        unit.in_register(*parameter, register, code.start..end);
    }
    Some(entry)
}

/// Whether an argument takes one register. Structures may take two or none.
fn is_in_register(types: &Types<'_>, of: Number) -> bool {
    match types.btf.resolved(of) {
        Some(Type::Int(int)) => int.size <= 8,
        Some(Type::Enum(described)) => described.size <= 8,
        Some(Type::Pointer(_)) => true,
        _ => false,
    }
}

/// Those that BTF describes, which are the per-CPU ones, and well-known others.
fn add_variables(unit: &mut Unit, types: &Types<'_>, symbols: &Symbols) {
    let mut seen = HashSet::new();
    for number in types.btf.own() {
        if let Some(Type::Variable { name, of }) = types.btf.get(number) {
            add_variable(unit, types, symbols, (name, of));
            seen.insert(name);
        }
    }
    for global in GLOBALS {
        if symbols.get(global.name).is_some()
            && let Some(of) = globals::type_of(types.btf, global)
            && !seen.contains(global.name.as_bytes())
        {
            add_variable(unit, types, symbols, (global.name.as_bytes(), of));
        }
    }
}

fn add_variable(
    unit: &mut Unit,
    types: &Types<'_>,
    symbols: &Symbols,
    (name, of): (&[u8], Number),
) -> Option<Entry> {
    let addr = symbols.unique(name)?.addr;
    let entry = types.entry(of).filter(|_| !unit.is_full())?;
    let root = unit.root();
    let variable = unit.add(root, DW_TAG_variable);
    unit.name(variable, name);
    unit.of_type(variable, Some(entry));
    unit.flag(variable, DW_AT_external);
    unit.at(variable, addr);
    Some(variable)
}
