//! Which kernel runs in the guest, and where.

use std::cell::{LazyCell, OnceCell};
use std::sync::Arc;

use super::btf::Btf;
use super::image::{self, Range};
use super::kallsyms;
use super::look_error::LookError;
use super::memory::{Guest, Memory};
use super::not_found::{NotFound, Version};
use super::symbols::Symbols;
use crate::paging::{AddressSpace, Mode};
use crate::symbol_file::SymbolFile;
use crate::target::PhysAddr;

/// Where a kernel without KASLR begins (CONFIG_PHYSICAL_START's default).
const DEFAULT_BASE: u64 = 0xffff_ffff_8100_0000;

/// The beginning of `linux_banner`, in every kernel since 1.0.
const BANNER: &str = "Linux version ";
const BANNER_SYMBOL: &str = "linux_banner";
/// Most bytes of it that are looked at.
const MAX_BANNER: usize = 512;

/// Most bytes of type information; Debian's kernel has 5 MiB.
const MAX_BTF: usize = 64 << 20;

/// The Linux that brought CONFIG_DEBUG_INFO_BTF.
const FIRST_WITH_TYPES: Version = Version(5, 2);

/// The version that is assumed of a kernel without a banner.
const UNKNOWN_VERSION: Version = Version(6, 4);

/// Most address spaces that are searched: the kernel is in all that a CPU uses
/// once it runs.
const MAX_SPACES: usize = 8;

/// Bit 12 of CR3 tells the page tables of user mode from the kernel's, under page
/// table isolation (PTI_USER_PGTABLE_BIT of arch/x86/include/asm/pgtable.h).
const USER_TABLES: u64 = 1 << 12;

/// The kernel in the guest's memory.
pub(crate) struct Kernel {
    pub symbols: Arc<Symbols>,
    /// Where it was found.
    found_in: AddressSpace,
    /// The page tables of the first task, which map all of the kernel's memory.
    tables: Option<PhysAddr>,
    /// `linux_banner`, if there is that symbol.
    pub banner: Option<String>,
    /// Where the image begins: `_text`.
    pub base: u64,
    /// Where the image was linked to begin; `None` if only the guest knows.
    linked: Option<u64>,
    /// Whether the symbols come from the guest's memory.
    pub from_guest: bool,
    types: OnceCell<Option<Arc<Btf>>>,
}

impl Kernel {
    /// Whether gdb would look for it in the wrong place.
    pub fn has_moved(&self) -> bool {
        self.base != self.linked()
    }

    /// Where the image was linked to begin, as far as is known.
    pub fn linked(&self) -> u64 {
        self.linked.unwrap_or(DEFAULT_BASE)
    }

    /// By how much it has, if that is known.
    pub fn slide(&self) -> Option<u64> {
        Some(self.base.wrapping_sub(self.linked?))
    }

    /// The page tables that map all of it, whatever a vCPU runs.
    pub fn space(&self, guest: &dyn Guest) -> AddressSpace {
        let Some(tables) = self.tables else {
            return self.found_in;
        };
        let space = AddressSpace {
            root: tables.0,
            ..self.found_in
        };
        // Early in the boot they are empty.
        match (Memory { guest, space }).translate(self.base) {
            Ok(_) => space,
            Err(_) => self.found_in,
        }
    }

    /// Its memory.
    pub fn memory<'a>(&self, guest: &'a dyn Guest) -> Memory<'a> {
        let space = self.space(guest);
        Memory { guest, space }
    }

    /// The address of a symbol that every kernel has.
    pub fn symbol(&self, name: &'static str) -> Result<u64, LookError> {
        self.symbols.get(name).ok_or(LookError::NoSymbol(name))
    }

    /// The kernel's types, read when they are first wanted.
    pub fn btf(&self, memory: &Memory<'_>) -> Result<&Arc<Btf>, LookError> {
        let read = || types(&self.symbols, memory).map(Arc::new);
        let types = self.types.get_or_init(read);
        types.as_ref().ok_or_else(|| match self.version() {
            Some(version) if version < FIRST_WITH_TYPES => LookError::TooOldForTypes(version),
            _ => LookError::NoTypes,
        })
    }

    /// Which Linux it is, if its banner says so.
    pub fn version(&self) -> Option<Version> {
        let numbers = self.banner.as_deref()?.strip_prefix(BANNER)?;
        let mut numbers = numbers.split(|c: char| !c.is_ascii_digit());
        let mut number = || numbers.next()?.parse().ok();
        Some(Version(number()?, number()?))
    }

    /// The same; that of a kernel without a banner is assumed.
    pub fn version_or_newest(&self) -> Version {
        self.version().unwrap_or(UNKNOWN_VERSION)
    }

    /// Whether it is still in memory.
    pub fn is_still_there(&self, guest: &dyn Guest) -> bool {
        match &self.banner {
            Some(banner) => {
                read_banner(&self.memory(guest), &self.symbols).as_ref() == Some(banner)
            }
            None => false,
        }
    }
}

/// The types of the kernel with these symbols.
pub(super) fn types(symbols: &Symbols, memory: &Memory<'_>) -> Option<Btf> {
    let start = symbols.get("__start_BTF")?;
    let end = symbols.get("__stop_BTF")?;
    let len = usize::try_from(end.checked_sub(start)?).ok()?;
    if len > MAX_BTF {
        return None;
    }
    Btf::parse(memory.bytes(start, len).ok()?)
}

/// Looks for the kernel: the one of `file` if its banner is in memory, else
/// whichever carries its symbols.
pub(crate) fn kernel(guest: &dyn Guest, file: Option<&SymbolFile>) -> Result<Kernel, NotFound> {
    // Read when something is mapped to compare it with: there are many symbols.
    let expected = LazyCell::new(|| expected(file?));
    let mut why = match pages_in_32_bits(guest) {
        true => NotFound::Bits32,
        false => NotFound::TooEarly,
    };
    for space in spaces(guest) {
        let memory = Memory { guest, space };
        let ranges = image::ranges(&memory);
        if ranges.is_empty() {
            continue;
        }
        if let Some(expected) = &*expected
            && let Some(kernel) = expected.find(&memory, &ranges)
        {
            return Ok(kernel);
        }
        if let Some(kernel) = of_kallsyms(&memory, &ranges) {
            if let Some(expected) = &*expected {
                let mismatch = NotFound::Mismatch {
                    path: expected.file.path().to_owned(),
                    expected: expected.banner.clone(),
                };
                tracing::warn!("gdb: {mismatch}");
            }
            return Ok(kernel);
        }
        why = match &*expected {
            Some(expected) => NotFound::Mismatch {
                path: expected.file.path().to_owned(),
                expected: expected.banner.clone(),
            },
            None => NotFound::NoSymbols,
        };
    }
    Err(why)
}

fn expected(file: &SymbolFile) -> Option<Expected<'_>> {
    Expected::of(file).unwrap_or_else(|error| {
        tracing::warn!("gdb: the symbol file cannot be read: {error}");
        None
    })
}

/// The address spaces in which the kernel may be mapped.
fn spaces(guest: &dyn Guest) -> Vec<AddressSpace> {
    let mut spaces: Vec<AddressSpace> = Vec::new();
    for registers in guest.registers().into_iter().flatten() {
        let space = AddressSpace::of(&registers);
        if !matches!(space.mode, Mode::Level4 | Mode::Level5) {
            continue;
        }
        // The kernel's own tables first: those of user mode have a part of it.
        for root in [space.root & !USER_TABLES, space.root] {
            let space = AddressSpace { root, ..space };
            if !spaces.contains(&space) {
                spaces.push(space);
            }
        }
    }
    spaces.truncate(MAX_SPACES);
    spaces
}

/// Whether a vCPU pages as no x86-64 kernel has it.
fn pages_in_32_bits(guest: &dyn Guest) -> bool {
    let modes = guest.registers().into_iter().flatten();
    modes
        .map(|registers| AddressSpace::of(&registers).mode)
        .any(|mode| matches!(mode, Mode::Bits32 { .. } | Mode::Pae))
}

/// A symbol file and what memory must have if it belongs to the kernel.
struct Expected<'a> {
    file: &'a SymbolFile,
    banner: String,
    banner_bytes: Vec<u8>,
    banner_addr: u64,
}

impl<'a> Expected<'a> {
    /// `None` if the file is no Linux kernel's, or without symbols.
    fn of(file: &'a SymbolFile) -> std::io::Result<Option<Self>> {
        let mut banner_addr = None;
        file.symbols(|symbol| {
            if symbol.name == BANNER_SYMBOL.as_bytes() {
                banner_addr = Some(symbol.addr);
            }
        })?;
        let Some(banner_addr) = banner_addr else {
            return Ok(None);
        };
        let mut bytes = file.read_linked(banner_addr, MAX_BANNER)?;
        bytes.truncate(memchr::memchr(0, &bytes).unwrap_or(0));
        let banner = String::from_utf8_lossy(&bytes).trim().to_owned();
        Ok(banner.starts_with(BANNER).then_some(Self {
            file,
            banner,
            banner_bytes: bytes,
            banner_addr,
        }))
    }

    /// The kernel, if one that is mapped has the file's banner in its place.
    fn find(&self, memory: &Memory<'_>, ranges: &[Range]) -> Option<Kernel> {
        let base = self.file.base();
        // The image begins where the first page of it is mapped. Early in the
        // boot more than the image is, but then it has not moved.
        let starts = ranges.iter().map(|range| range.start).chain([base]);
        let slide = starts
            .map(|start| start.wrapping_sub(base))
            .find(|slide| self.is_at(memory, *slide))?;
        let symbols = Symbols::of_file(self.file, slide)
            .map_err(|error| tracing::warn!("gdb: the symbol file cannot be read: {error}"))
            .ok()?;
        Some(Kernel {
            found_in: with_no_execute(memory.space),
            tables: tables(memory, &symbols),
            symbols: Arc::new(symbols),
            banner: Some(self.banner.clone()),
            base: base.wrapping_add(slide),
            linked: Some(base),
            from_guest: false,
            types: OnceCell::new(),
        })
    }

    fn is_at(&self, memory: &Memory<'_>, slide: u64) -> bool {
        let addr = self.banner_addr.wrapping_add(slide);
        memory.bytes(addr, self.banner_bytes.len()).as_ref() == Ok(&self.banner_bytes)
    }
}

fn of_kallsyms(memory: &Memory<'_>, ranges: &[Range]) -> Option<Kernel> {
    let symbols = ranges.iter().find_map(|range| {
        let image = memory.bytes(range.start, usize::try_from(range.len).ok()?);
        kallsyms::find(&image.ok()?, range.start)
    })?;
    let base = symbols.get("_text").or_else(|| symbols.get("_stext"))?;
    let banner = read_banner(memory, &symbols);
    tracing::info!(symbols = symbols.len(), "gdb: the guest's own symbol table");
    Some(Kernel {
        found_in: with_no_execute(memory.space),
        tables: tables(memory, &symbols),
        symbols: Arc::new(symbols),
        banner,
        base,
        linked: None,
        from_guest: true,
        types: OnceCell::new(),
    })
}

/// The bit that forbids execution is set where EFER.NXE allows it, which a vCPU in the
/// kernel's first instructions may have yet to set.
fn with_no_execute(space: AddressSpace) -> AddressSpace {
    AddressSpace {
        no_execute: true,
        ..space
    }
}

/// The first task's page tables, by the names that they have had (the last one up to
/// 4.12).
fn tables(memory: &Memory<'_>, symbols: &Symbols) -> Option<PhysAddr> {
    let names = ["init_top_pgt", "swapper_pg_dir", "init_level4_pgt"];
    let addr = names.iter().find_map(|name| symbols.get(name))?;
    Some(memory.translate(addr).ok()?.phys)
}

fn read_banner(memory: &Memory<'_>, symbols: &Symbols) -> Option<String> {
    let addr = symbols.get(BANNER_SYMBOL)?;
    let text = memory.bytes(addr, MAX_BANNER).ok()?;
    let end = memchr::memchr(0, &text)?;
    let text = super::memory::printable(&text[..end]);
    let text = text.trim_end_matches('\u{fffd}');
    text.starts_with(BANNER).then(|| text.to_owned())
}

#[cfg(test)]
#[path = "locate_test.rs"]
mod tests;
