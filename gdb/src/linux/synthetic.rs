//! An ELF file with nothing but symbols, at their run-time addresses.

use std::ops::Range;

use object::Endianness;
use object::elf;
use object::write::elf::{FileHeader, ProgramHeader, SectionHeader, Sym, Writer};
use object::write::{Error, StringId};

use super::image::AREA;
use super::symbols::{Kind, Symbol, Symbols};

/// Makes an executable of `symbols` for a kernel that begins at `base`.
pub(crate) fn elf(symbols: &Symbols, base: u64) -> Result<Vec<u8>, Error> {
    let sections = sections(symbols, base);
    let mut bytes = Vec::new();
    let mut writer = Writer::new(Endianness::Little, true, &mut bytes);
    let names: Vec<StringId> = symbols
        .iter()
        .map(|symbol| writer.add_string(symbol.name))
        .collect();
    let section_names: Vec<StringId> = sections
        .iter()
        .map(|section| writer.add_section_name(section.name))
        .collect();
    reserve(&mut writer, sections.len(), names.len())?;
    writer.write_file_header(&FileHeader {
        os_abi: elf::ELFOSABI_NONE,
        abi_version: 0,
        e_type: elf::ET_EXEC,
        e_machine: elf::EM_X86_64,
        e_entry: base,
        e_flags: elf::FileFlags(0),
    })?;
    writer.write_align_program_headers();
    writer.write_program_header(&segment(&sections, base));
    writer.write_null_symbol();
    for (symbol, name) in symbols.iter().zip(names) {
        let st_name = writer.string_offset(Some(name));
        writer.write_symbol(&entry(&symbol, &sections, st_name));
    }
    writer.write_strtab();
    writer.write_shstrtab();
    writer.write_null_section_header();
    for (section, name) in sections.iter().zip(section_names) {
        let sh_name = writer.section_name_offset(Some(name));
        writer.write_section_header(&section.header(sh_name));
    }
    writer.write_symtab_section_header(1);
    writer.write_strtab_section_header();
    writer.write_shstrtab_section_header();
    Ok(bytes)
}

/// The layout that [`elf`] then writes in this order.
fn reserve(writer: &mut Writer<'_>, sections: usize, symbols: usize) -> Result<(), Error> {
    writer.reserve_null_section_index();
    for _ in 0..sections {
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
    writer.reserve_section_headers();
    Ok(())
}

/// A part of the image, of which the file has no contents. gdb tells code from
/// data by it.
struct Section {
    name: &'static [u8],
    code: bool,
    range: Range<u64>,
}

impl Section {
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

/// The parts between those symbols of the linker script that are there:
/// arch/x86/kernel/vmlinux.lds.S.
fn sections(symbols: &Symbols, base: u64) -> Vec<Section> {
    let last = symbols.iter().map(|symbol| symbol.addr);
    let last = last.filter(|addr| AREA.contains(addr)).max();
    let end = last.unwrap_or(base).max(base) + 1;
    let borders: [(&'static [u8], bool, &str); 4] = [
        (b".text", true, "_etext"),
        (b".data", false, "_sinittext"),
        (b".init.text", true, "_einittext"),
        (b".bss", false, ""),
    ];
    let mut sections = Vec::new();
    let mut at = base;
    for (name, code, border) in borders {
        let border = symbols.get(border).unwrap_or(end);
        if (at + 1..=end).contains(&border) {
            let range = at..border;
            sections.push(Section { name, code, range });
            at = border;
        }
    }
    if at < end {
        let (name, code) = (b".rest", false);
        sections.push(Section {
            name,
            code,
            range: at..end,
        });
    }
    sections
}

fn segment(sections: &[Section], base: u64) -> ProgramHeader {
    let end = sections.last().map_or(base, |section| section.range.end);
    ProgramHeader {
        p_type: elf::PT_LOAD,
        p_flags: elf::PF_R | elf::PF_W | elf::PF_X,
        p_offset: 0,
        p_vaddr: base,
        p_paddr: base,
        p_filesz: 0,
        p_memsz: end - base,
        p_align: 1,
    }
}

/// What is outside of the image, such as the per-CPU symbols, is absolute.
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
