//! ELF files that go with the guest, as gdb is to see them.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use object::LittleEndian;
use object::elf::{
    EM_386, EM_X86_64, FileHeader32, FileHeader64, PT_LOAD, SHF_ALLOC, SHT_SYMTAB, STT_FILE,
    STT_SECTION,
};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::read::{ReadCache, ReadRef};

type Header32 = FileHeader32<LittleEndian>;
type Header64 = FileHeader64<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;

/// Where x86-64 Linux keeps per-CPU variables, up to 6.14 linked at address 0.
const PERCPU_SECTION: &[u8] = b".data..percpu";

/// An ELF file on the host: the kernel that was booted, or one with its symbols.
///
/// It stays open, so that a file that is replaced meanwhile does not matter.
#[derive(Debug)]
pub struct SymbolFile {
    path: PathBuf,
    file: File,
    len: u64,
    class: Class,
    /// Link-time address of the first loadable segment.
    base: u64,
    patches: Vec<Patch>,
}

/// Which headers the file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Elf32,
    Elf64,
}

/// The file cannot serve as gdb's symbol file.
#[derive(Debug, thiserror::Error)]
pub enum SymbolFileError {
    #[error("cannot read symbols from {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{} is no source of symbols: {problem}; give the vmlinux that belongs to the kernel",
        path.display()
    )]
    Format {
        path: PathBuf,
        problem: &'static str,
    },
}

/// Bytes that gdb sees in place of the file's.
#[derive(Debug, PartialEq, Eq)]
struct Patch {
    offset: u64,
    bytes: [u8; 4],
}

/// A symbol as the file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileSymbol<'a> {
    pub name: &'a [u8],
    pub addr: u64,
}

impl SymbolFile {
    /// Opens the file and looks at its headers.
    ///
    /// # Errors
    /// It cannot be read, or is no ELF file of x86 or x86-64 with something to load.
    pub fn open(path: &Path) -> Result<Self, SymbolFileError> {
        let failed = |source| SymbolFileError::Read {
            path: path.to_owned(),
            source,
        };
        let absolute = path.canonicalize().map_err(failed)?;
        // Before it is opened, for which a FIFO would have to have a writer.
        let metadata = absolute.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(io::Error::new(
                ErrorKind::InvalidInput,
                "it is no regular file",
            )));
        }
        let file = File::open(&absolute).map_err(failed)?;
        let cache = ReadCache::new(file.try_clone().map_err(failed)?);
        let len = metadata.len();
        let inspected = class(&cache).and_then(|class| {
            let (base, patches) = match class {
                Class::Elf32 => inspect::<Header32>(&cache, len),
                Class::Elf64 => inspect::<Header64>(&cache, len),
            }?;
            Ok((class, base, patches))
        });
        let (class, base, patches) = inspected.map_err(|problem| SymbolFileError::Format {
            path: path.to_owned(),
            problem,
        })?;
        Ok(Self {
            path: absolute,
            file,
            len,
            class,
            base,
            patches,
        })
    }

    /// Absolute, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// In bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Whether the program that it has the symbols of runs in long mode.
    pub(crate) fn is_64_bit(&self) -> bool {
        self.class == Class::Elf64
    }

    /// Link-time address of the first loadable segment.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// The link-time address above 4 GiB with this lower half that the file has
    /// something at; a 32-bit file has none.
    pub(crate) fn above_4_gib(&self, low: u32) -> Option<u64> {
        if !self.is_64_bit() {
            return None;
        }
        let cache = ReadCache::new(self.file.try_clone().ok()?);
        let header = Header64::parse(&cache).ok()?;
        let segments = header.program_headers(ENDIAN, &cache).ok()?;
        let mut loaded = segments
            .iter()
            .filter(|segment| segment.p_type(ENDIAN) == PT_LOAD);
        loaded.find_map(|segment| {
            let start = segment.p_vaddr(ENDIAN);
            let within = u64::from(low.wrapping_sub(start as u32));
            let addr = start.checked_add(within)?;
            (within < segment.p_memsz(ENDIAN) && addr >> 32 != 0).then_some(addr)
        })
    }

    /// Reads up to the end of the file, as gdb is to see it: with the per-CPU
    /// section outside of any segment, so that `qOffsets`, which moves segments,
    /// leaves it at address 0.
    pub(crate) fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        if offset >= self.len {
            return Ok(0);
        }
        let mut done = 0;
        while done < buf.len() {
            match self.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        for patch in &self.patches {
            patch.apply(offset, &mut buf[..done]);
        }
        Ok(done)
    }

    /// Hands every defined symbol of the file to `each`, as long as the file is
    /// what its headers say.
    pub(crate) fn symbols(&self, mut each: impl FnMut(FileSymbol<'_>)) -> io::Result<()> {
        let cache = ReadCache::new(self.file.try_clone()?);
        let read = match self.class {
            Class::Elf32 => read_symbols::<Header32>(&cache, &mut each),
            Class::Elf64 => read_symbols::<Header64>(&cache, &mut each),
        };
        read.map_err(io::Error::other)
    }

    /// Bytes that the file puts at a link-time address; fewer where they end.
    pub(crate) fn read_linked(&self, addr: u64, len: usize) -> io::Result<Vec<u8>> {
        let cache = ReadCache::new(self.file.try_clone()?);
        match self.class {
            Class::Elf32 => read_linked::<Header32>(&cache, addr, len),
            Class::Elf64 => read_linked::<Header64>(&cache, addr, len),
        }
    }
}

impl Patch {
    /// Patches `buf`, which has the file's bytes from `offset` on.
    fn apply(&self, offset: u64, buf: &mut [u8]) {
        for (at, byte) in (self.offset..).zip(self.bytes) {
            let index = at.checked_sub(offset).map(usize::try_from);
            if let Some(Ok(index)) = index
                && let Some(place) = buf.get_mut(index)
            {
                *place = byte;
            }
        }
    }
}

/// The kind of the file, if this debugger knows it.
fn class(cache: &ReadCache<File>) -> Result<Class, &'static str> {
    let (class, machine) = if let Ok(header) = Header64::parse(cache) {
        (Class::Elf64, header.e_machine(ENDIAN))
    } else {
        let header = Header32::parse(cache).map_err(|_| "it is no ELF file")?;
        (Class::Elf32, header.e_machine(ENDIAN))
    };
    match (class, machine) {
        (Class::Elf64, EM_X86_64) | (Class::Elf32, EM_386) => Ok(class),
        _ => Err("it is for neither x86 nor x86-64"),
    }
}

/// The address of the first segment, and what to hide of the per-CPU section.
fn inspect<H: FileHeader<Endian = LittleEndian>>(
    cache: &ReadCache<File>,
    len: u64,
) -> Result<(u64, Vec<Patch>), &'static str> {
    let header = H::parse(cache).map_err(|_| "it is no ELF file")?;
    let segments = header
        .program_headers(ENDIAN, cache)
        .map_err(|_| "its program headers are not in the file")?;
    let base = segments
        .iter()
        .find(|segment| segment.p_type(ENDIAN) == PT_LOAD)
        .map(|segment| segment.p_vaddr(ENDIAN).into())
        .ok_or("it has nothing to load")?;
    let end = |offset: u64, count: usize, size: u16| offset + count as u64 * u64::from(size);
    let sections = header
        .sections(ENDIAN, cache)
        .map_err(|_| "its section headers are not in the file")?;
    if end(
        header.e_shoff(ENDIAN).into(),
        sections.len(),
        header.e_shentsize(ENDIAN),
    ) > len
    {
        return Err("its section headers are not in the file");
    }
    let percpu = sections.iter().position(|section| {
        section.sh_addr(ENDIAN).into() == 0
            && section.sh_flags(ENDIAN).contains(SHF_ALLOC)
            && sections.section_name(ENDIAN, section) == Ok(PERCPU_SECTION)
    });
    let Some(percpu) = percpu else {
        return Ok((base, Vec::new()));
    };
    let mut patches = Vec::new();
    for (n, segment) in segments.iter().enumerate() {
        if segment.p_type(ENDIAN) == PT_LOAD && segment.p_vaddr(ENDIAN).into() == 0 {
            // p_type, first in the header, becomes PT_NULL.
            let offset = end(header.e_phoff(ENDIAN).into(), n, header.e_phentsize(ENDIAN));
            patches.push(Patch {
                offset,
                bytes: [0; 4],
            });
        }
    }
    // sh_type, second in the header, becomes SHT_NOBITS: gdb warns of contents
    // that no segment loads.
    let offset = end(
        header.e_shoff(ENDIAN).into(),
        percpu,
        header.e_shentsize(ENDIAN),
    ) + 4;
    patches.push(Patch {
        offset,
        bytes: 8u32.to_le_bytes(),
    });
    Ok((base, patches))
}

/// [`SymbolFile::read_linked`] of a file with these headers.
fn read_linked<H: FileHeader<Endian = LittleEndian>>(
    data: &ReadCache<File>,
    addr: u64,
    len: usize,
) -> io::Result<Vec<u8>> {
    let header = H::parse(data).map_err(io::Error::other)?;
    let segments = header
        .program_headers(ENDIAN, data)
        .map_err(io::Error::other)?;
    for segment in segments {
        let (offset, size) = segment.file_range(ENDIAN);
        let within = addr.wrapping_sub(segment.p_vaddr(ENDIAN).into());
        if segment.p_type(ENDIAN) == PT_LOAD && within < size {
            let len = (size - within).min(len as u64);
            // `offset` is the file's, and may be anything.
            let bytes = data.read_bytes_at(offset.saturating_add(within), len);
            let short = || io::Error::from(ErrorKind::UnexpectedEof);
            return Ok(bytes.map_err(|()| short())?.to_vec());
        }
    }
    Ok(Vec::new())
}

/// [`SymbolFile::symbols`] of a file with these headers.
fn read_symbols<H: FileHeader<Endian = LittleEndian>>(
    cache: &ReadCache<File>,
    each: &mut impl FnMut(FileSymbol<'_>),
) -> object::read::Result<()> {
    let header = H::parse(cache)?;
    let sections = header.sections(ENDIAN, cache)?;
    for section in sections.iter() {
        if section.sh_type(ENDIAN) != SHT_SYMTAB {
            continue;
        }
        let symbols: &[H::Sym] = section.data_as_array(ENDIAN, cache)?;
        // All names at once: one read a symbol would take seconds.
        let names = sections
            .section(object::SectionIndex(section.sh_link(ENDIAN) as usize))?
            .data(ENDIAN, cache)?;
        for symbol in symbols {
            let name = names
                .get(symbol.st_name(ENDIAN) as usize..)
                .unwrap_or_default();
            let name = &name[..memchr::memchr(0, name).unwrap_or(0)];
            let names_place = !matches!(symbol.st_type(), STT_SECTION | STT_FILE);
            if names_place && !symbol.is_undefined(ENDIAN) && !name.is_empty() {
                each(FileSymbol {
                    name,
                    addr: symbol.st_value(ENDIAN).into(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "symbol_file_test.rs"]
mod tests;
