//! An ELF file with symbols and debug information, at their run-time addresses.

use std::borrow::Cow;
use std::ops::Range;

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Sym, Writer};
use object::write::{Error, StringId};

use super::dwarf::DebugSection;
use super::image::AREA;
use super::module_parts::Part;
use super::modules::Module;
use super::symbols::{Kind, Symbol, Symbols};

/// Symbols of modules, with the memory that they are in.
#[derive(Default)]
pub(crate) struct ModuleSymbols {
    pub modules: Vec<Module>,
    pub symbols: Symbols,
}

/// Makes an executable of `symbols` for a kernel that begins at `base`, with debug
/// information.
pub(crate) fn kernel(
    symbols: &Symbols,
    base: u64,
    debug: &[DebugSection],
) -> Result<Vec<u8>, Error> {
    let sections = sections(symbols, base);
    let end = sections.last().map_or(base, |section| section.range.end);
    let all: Vec<_> = symbols.iter().collect();
    elf(&sections, &all, &segment(base..end), debug)
}

/// The same of one module. Each piece of its memory is a section. The code that stays is
/// the one segment: gdb takes a library's first and last one for its bounds, in this
/// order, and ends itself where the last is before the first (gdb 13.1).
pub(crate) fn module(
    module: &Module,
    symbols: &Symbols,
    debug: &[DebugSection],
) -> Result<Vec<u8>, Error> {
    let sections: Vec<_> = module.parts.iter().map(Section::of).collect();
    let stays = module.parts.first().map_or(0..0, Part::range);
    let all: Vec<_> = symbols.iter().collect();
    elf(&sections, &all, &segment(stays), debug)
}

/// The names of all modules.
pub(crate) fn modules(modules: &ModuleSymbols) -> Result<Vec<u8>, Error> {
    let sections: Vec<_> = module_sections(modules).collect();
    let all: Vec<_> = modules.symbols.iter().collect();
    // Nothing is to be loaded, but gdb wants a segment.
    elf(&sections, &all, &segment(0..0), &[])
}

fn elf(
    sections: &[Section],
    symbols: &[Symbol<'_>],
    segment: &ProgramHeader,
    debug: &[DebugSection],
) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    let names: Vec<StringId> = symbols
        .iter()
        .map(|symbol| writer.add_string(symbol.name))
        .collect();
    let section_names: Vec<StringId> = sections
        .iter()
        .map(|section| writer.add_section_name(section.name.as_bytes()))
        .collect();
    let debug_names: Vec<StringId> = debug
        .iter()
        .map(|section| writer.add_section_name(section.name.as_bytes()))
        .collect();
    let places = reserve(&mut writer, sections.len(), names.len(), debug)?;
    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: segment.p_vaddr,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_align_program_headers();
    writer.write_program_header(segment);
    writer.write_null_symbol();
    for (symbol, name) in symbols.iter().zip(names) {
        let st_name = writer.string_offset(Some(name));
        writer.write_symbol(&entry(symbol, sections, st_name));
    }
    writer.write_strtab();
    writer.write_shstrtab();
    for section in debug {
        writer.write(&section.data);
    }
    writer.write_null_section_header();
    for (section, name) in sections.iter().zip(section_names) {
        let sh_name = writer.section_name_offset(Some(name));
        writer.write_section_header(&section.header(sh_name));
    }
    for ((section, name), place) in debug.iter().zip(debug_names).zip(places) {
        let sh_name = writer.section_name_offset(Some(name));
        writer.write_section_header(&debug_header(section, sh_name, place));
    }
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(bytes)
}

/// The layout that [`elf`] then writes in this order: where debug sections are.
fn reserve(
    writer: &mut Writer<'_>,
    sections: usize,
    symbols: usize,
    debug: &[DebugSection],
) -> Result<Vec<u64>, Error> {
    writer.reserve_null_section_index();
    for _ in 0..sections + debug.len() {
        writer.reserve_section_index();
    }
    writer.reserve_symtab_section_index();
    writer.reserve_strtab_section_index();
    writer.reserve_shstrtab_section_index();
    writer.reserve_file_header();
    writer.reserve_program_headers(1);
    writer.reserve_null_symbol_index();
    for _ in 0..symbols {
        writer.reserve_symbol_index(None);
    }
    writer.reserve_symtab();
    writer.reserve_strtab()?;
    writer.reserve_shstrtab()?;
    let places = debug
        .iter()
        .map(|section| writer.reserve(section.data.len() as u64, 1));
    let places = places.collect();
    writer.reserve_section_headers();
    Ok(places)
}

/// A part of the image, of which the file has no contents. gdb tells code from
/// data by it.
struct Section {
    name: Cow<'static, str>,
    code: bool,
    range: Range<u64>,
}

impl Section {
    /// A piece of a module's memory.
    fn of(part: &Part) -> Self {
        Self {
            name: part.kind.name.into(),
            code: part.kind.code,
            range: part.range(),
        }
    }

    fn header(&self, sh_name: u32) -> SectionHeader {
        let flags = if self.code {
            elf::SHF_EXECINSTR
        } else {
            elf::SHF_WRITE
        };
        SectionHeader {
            sh_name,
            sh_type: elf::SHT_NOBITS,
            sh_flags: elf::SHF_ALLOC | flags,
            sh_addr: self.range.start,
            sh_offset: 0,
            sh_size: self.range.end - self.range.start,
            sh_link: 0,
            sh_info: 0,
            sh_addralign: 1,
            sh_entsize: 0,
        }
    }
}

fn debug_header(section: &DebugSection, sh_name: u32, sh_offset: u64) -> SectionHeader {
    SectionHeader {
        sh_name,
        sh_type: elf::SHT_PROGBITS,
        sh_flags: elf::SectionFlags(0),
        sh_addr: 0,
        sh_offset,
        sh_size: section.data.len() as u64,
        sh_link: 0,
        sh_info: 0,
        sh_addralign: 1,
        sh_entsize: 0,
    }
}

/// The parts between those symbols of the linker script that are there:
/// arch/x86/kernel/vmlinux.lds.S.
fn sections(symbols: &Symbols, base: u64) -> Vec<Section> {
    let last = symbols.iter().map(|symbol| symbol.addr);
    let last = last.filter(|addr| AREA.contains(addr)).max();
    let end = last.unwrap_or(base).max(base) + 1;
    let borders = [
        (".text", true, "_etext"),
        (".data", false, "_sinittext"),
        (".init.text", true, "_einittext"),
        (".bss", false, ""),
    ];
    let mut sections = Vec::new();
    let mut at = base;
    for (name, code, border) in borders {
        let name = name.into();
        let border = symbols.get(border).unwrap_or(end);
        if (at + 1..=end).contains(&border) {
            let range = at..border;
            sections.push(Section { name, code, range });
            at = border;
        }
    }
    if at < end {
        sections.push(Section {
            name: ".rest".into(),
            code: false,
            range: at..end,
        });
    }
    sections
}

/// A section for each piece of memory that a module has.
fn module_sections(modules: &ModuleSymbols) -> impl Iterator<Item = Section> {
    let parts = |module: &Module| {
        let name = module.name.clone();
        let parts = module.parts.clone().into_iter();
        parts.map(move |part| Section {
            name: format!("{name}{}", part.kind.name).into(),
            ..Section::of(&part)
        })
    };
    modules.modules.iter().flat_map(parts)
}

/// A segment of which the file has no contents.
fn segment(range: Range<u64>) -> ProgramHeader {
    ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags: elf::PF_R | elf::PF_W | elf::PF_X,
        p_offset: 0,
        p_vaddr: range.start,
        p_paddr: range.start,
        p_filesz: 0,
        p_memsz: range.end - range.start,
        p_align: 1,
    }
}

/// Symbols outside of the image, such as the per-CPU ones, are absolute.
fn entry(symbol: &Symbol<'_>, sections: &[Section], st_name: u32) -> Sym {
    let section = sections
        .iter()
        .position(|section| section.range.contains(&symbol.addr));
    let kind = match symbol.kind {
        Kind::Text => elf::STT_FUNC,
        Kind::Data => elf::STT_OBJECT,
    };
    Sym {
        section: section.map(|index| index as u32 + 1),
        st_name,
        st_info: elf::SymbolInfo::new(elf::STB_GLOBAL, kind),
        st_other: elf::SymbolOther(0),
        st_shndx: match section {
            Some(_) => elf::SHN_UNDEF,
            None => elf::SHN_ABS,
        },
        st_value: symbol.addr,
        st_size: 0,
    }
}

#[cfg(test)]
#[path = "synthetic_test.rs"]
mod tests;
