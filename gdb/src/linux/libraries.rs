//! Modules as libraries, which is what gdb takes them for: it asks for a list of files
//! (`qXfer:libraries:read`) and reads each of them.
//!
//! gdb tells libraries apart by their names alone. A name here has all that makes
//! another file of the same module: where it is, and whether it is still initialised.

use std::ops::Range;

use super::module_parts::Part;
use super::modules::Module;

/// Where the files are, for gdb.
const DIRECTORY: &str = "/outboard/modules";

/// A module with the name of its file.
pub(super) struct Library {
    pub name: String,
    pub module: Module,
}

impl Library {
    fn of(module: Module) -> Self {
        let init = if module.is_coming() { "-init" } else { "" };
        // The guest chose the name, and it gets into a path and into XML.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let plain = |c| if is_plain(c) { c } else { '_' };
        let own: String = module.name.chars().map(plain).collect();
        let name = format!("{DIRECTORY}/{:x}{init}/{own}.ko", module.base());
        Self { name, module }
    }
}

/// The libraries of these modules. One without memory is none.
pub(super) fn of(modules: Vec<Module>) -> Vec<Library> {
    let loaded = modules.into_iter().filter(|module| module.base() != 0);
    let mut libraries: Vec<_> = loaded.map(Library::of).collect();
    libraries.sort_by(|one, other| one.name.cmp(&other.name));
    libraries.dedup_by(|one, other| one.name == other.name);
    libraries
}

/// A library as one that has been told of it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub name: String,
    pub memory: Vec<Range<u64>>,
}

impl From<&Library> for Told {
    fn from(library: &Library) -> Self {
        Self {
            name: library.name.clone(),
            memory: library.module.parts.iter().map(Part::range).collect(),
        }
    }
}

/// The memory of those in `told` that are not among `libraries`.
pub(super) fn gone(told: &[Told], libraries: &[Library]) -> Vec<Range<u64>> {
    let is_there = |told: &Told| libraries.iter().any(|library| library.name == told.name);
    let gone = told.iter().filter(|told| !is_there(told));
    gone.flat_map(|told| told.memory.clone()).collect()
}

/// The list in gdb's format (gdb manual, "Library List Format"). Addresses in the files
/// are those of the guest, so that gdb moves nothing.
pub(super) fn xml(libraries: &[Library]) -> String {
    let mut text = "<library-list>\n".to_owned();
    for Library { name, module } in libraries {
        text.push_str(&format!(
            "<library name=\"{name}\"><segment address=\"{:#x}\"/></library>\n",
            module.base()
        ));
    }
    text.push_str("</library-list>\n");
    text
}

#[cfg(test)]
#[path = "libraries_test.rs"]
mod tests;
