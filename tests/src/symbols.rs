//! Addresses of an ELF file's symbols.

use std::path::Path;

use object::{Object, ObjectSymbol};

/// The address of `name`.
///
/// # Panics
/// The file cannot be read or has no such symbol.
pub fn address(file: &Path, name: &str) -> u64 {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let elf = object::File::parse(&*bytes).unwrap();
    let symbol = elf.symbols().find(|symbol| symbol.name() == Ok(name));
    let symbol = symbol.unwrap_or_else(|| panic!("no {name} in {}", file.display()));
    symbol.address()
}
