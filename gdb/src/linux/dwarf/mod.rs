//! Debug information for gdb, made of what a running kernel has for its own use:
//! types and functions of its BTF, and the frames of its unwind tables (ORC).
//!
//! | module | what it does |
//! |---|---|
//! | `section` | what it is written to |
//! | `unit` | the compile unit that all of it is in |
//! | `needed` | which types it has to have |
//! | `types` | its types |
//! | `globals` | variables whose types BTF does not tell |
//! | `program` | its functions and variables |
//! | `frames` | how frames are unwound |

mod frames;
mod globals;
mod needed;
mod program;
mod section;
mod types;
mod unit;

use gimli::write::Error;

use super::btf::Btf;
pub(crate) use frames::frames;
pub(crate) use program::Code;
pub(crate) use section::DebugSection;
use types::Types;
use unit::Unit;

/// Types, functions and variables.
///
/// # Errors
/// They do not fit into a file.
pub(crate) fn info(btf: &Btf, code: &Code<'_>) -> Result<Vec<DebugSection>, Error> {
    let mut unit = Unit::new(code.name);
    let types = Types::add(&mut unit, btf);
    program::add(&mut unit, &types, code);
    unit.write()
}

#[cfg(test)]
#[path = "dwarf_test.rs"]
mod tests;
