//! The symbols that the kernel keeps of its modules (CONFIG_KALLSYMS): all of them
//! while a module is initialised, then those of the memory that stays.

use super::memory::Memory;
use super::modules::Module;
use super::symbols::{Kind, Symbols};
use super::{Kernel, LookError};

/// Most symbols of one module.
const MAX_SYMBOLS: usize = 1 << 18;
/// Most bytes of their names.
const MAX_NAMES: u32 = 16 << 20;
/// Longest name of a symbol, with room for longer ones than today's 511.
const MAX_NAME: usize = 2048;

/// `Elf64_Sym`: its size, and where its members are (gABI, chapter 4).
mod sym {
    pub const SIZE: usize = 24;
    pub const NAME: usize = 0;
    pub const SECTION: usize = 6;
    pub const VALUE: usize = 8;
    pub const UNDEFINED: u16 = 0;
}

/// Adds the symbols of `module` at their run-time addresses.
pub(crate) fn add(
    kernel: &Kernel,
    memory: &Memory<'_>,
    module: &Module,
    symbols: &mut Symbols,
) -> Result<(), LookError> {
    let btf = kernel.btf(memory)?;
    let table = memory.u64(module.addr.wrapping_add(btf.offset("module", "kallsyms")?))?;
    if table == 0 {
        return Ok(());
    }
    let member = |name| Ok::<_, LookError>(table.wrapping_add(btf.offset("mod_kallsyms", name)?));
    let count = memory.u32(member("num_symtab")?)? as usize;
    if count > MAX_SYMBOLS {
        return Err(LookError::Nonsense("a module's symbol table"));
    }
    let entries = memory.bytes(memory.u64(member("symtab")?)?, count * sym::SIZE)?;
    let entries = || entries.chunks_exact(sym::SIZE);
    let last = entries().map(|entry| word(entry, sym::NAME)).max();
    let names = names(memory, memory.u64(member("strtab")?)?, last.unwrap_or(0))?;
    for entry in entries() {
        let section = u16::from_le_bytes([entry[sym::SECTION], entry[sym::SECTION + 1]]);
        let value =
            u64::from(word(entry, sym::VALUE)) | u64::from(word(entry, sym::VALUE + 4)) << 32;
        // Symbols elsewhere are absolute, or per CPU.
        let Some(part) = module.part_at(value).filter(|_| section != sym::UNDEFINED) else {
            continue;
        };
        let name = &names[word(entry, sym::NAME) as usize..];
        let name = &name[..name.len().min(MAX_NAME)];
        let name = &name[..memchr::memchr(0, name).unwrap_or(0)];
        if !name.is_empty() {
            let kind = if part.kind.code {
                Kind::Text
            } else {
                Kind::Data
            };
            symbols.push(name, value, kind);
        }
    }
    Ok(())
}

/// The table of names up to the end of the one at `last`.
fn names(memory: &Memory<'_>, table: u64, last: u32) -> Result<Vec<u8>, LookError> {
    if last > MAX_NAMES {
        return Err(LookError::Nonsense("a module's names"));
    }
    let mut names = memory.bytes(table, last as usize)?;
    let end = memory.string_bytes(table.wrapping_add(u64::from(last)), MAX_NAME)?;
    names.extend_from_slice(&end);
    names.push(0);
    Ok(names)
}

fn word(entry: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
}
