//! Loaded modules and where their sections are.

use super::lists;
use super::memory::{Memory, Unreadable};
use super::{Kernel, LookError};

const MAX_MODULES: usize = 4096;
/// Most sections of one that are listed.
const MAX_SECTIONS: u64 = 256;
/// Longest name of a module or a section.
const MAX_NAME: usize = 128;

/// Sections that gdb is told of besides `.text`: those that the kernel's own
/// lx-symbols names. `.init.text` is free for others after initialisation.
const SECTIONS: [&str; 6] = [
    ".data",
    ".data..read_mostly",
    ".rodata",
    ".bss",
    ".text.hot",
    ".text.unlikely",
];

/// A module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Module {
    pub name: String,
    /// Address of its code.
    pub base: u64,
    /// Size of its code in bytes; up to Linux 6.3 with its data.
    pub size: u64,
    /// Name and address of each section, if the kernel keeps them (CONFIG_SYSFS,
    /// CONFIG_KALLSYMS).
    pub sections: Vec<(String, u64)>,
}

impl Module {
    /// gdb's command that loads the module's symbols.
    pub fn add_symbol_file(&self) -> String {
        let at = |name: &str| self.sections.iter().find(|(found, _)| found == name);
        let text = at(".text").map_or(self.base, |(_, addr)| *addr);
        let mut line = format!("add-symbol-file {}.ko {text:#x}", self.name);
        for name in SECTIONS {
            if let Some((_, addr)) = at(name) {
                line.push_str(&format!(" -s {name} {addr:#x}"));
            }
        }
        line
    }
}

/// Where the members of the structures are.
struct Layout {
    list: u64,
    name: u64,
    base: u64,
    size: u64,
    sections: Option<Sections>,
}

struct Sections {
    attrs: u64,
    count: Count,
    array: u64,
    stride: u64,
    name: u64,
    address: u64,
}

/// How many sections there are.
enum Count {
    /// By a member.
    Member(u64),
    /// By this member, a list of pointers that ends in a null pointer.
    Pointers(u64),
}

impl Layout {
    fn of(kernel: &Kernel, memory: &Memory<'_>) -> Result<Self, LookError> {
        let btf = kernel.btf(memory)?;
        let module = |path: &str| btf.offset("module", path);
        // From 6.4 on an array, with the code first.
        let (base, size) = match module("mem") {
            Ok(mem) => (
                mem + btf.offset("module_memory", "base")?,
                mem + btf.offset("module_memory", "size")?,
            ),
            Err(_) => (module("core_layout.base")?, module("core_layout.size")?),
        };
        // From 6.14 on an array of attributes; before, of these with addresses.
        let sections = || {
            let attrs = module("sect_attrs")?;
            let array = btf.offset("module_sect_attrs", "attrs")?;
            let (stride, name, address) = match btf.size("module_sect_attr") {
                Ok(stride) => (
                    stride,
                    btf.offset("module_sect_attr", "battr.attr.name")?,
                    btf.offset("module_sect_attr", "address")?,
                ),
                Err(_) => (
                    btf.size("bin_attribute")?,
                    btf.offset("bin_attribute", "attr.name")?,
                    btf.offset("bin_attribute", "private")?,
                ),
            };
            // Dropped in 6.14 too.
            let count = match btf.offset("module_sect_attrs", "nsections") {
                Ok(count) => Count::Member(count),
                Err(_) => Count::Pointers(btf.offset("module_sect_attrs", "grp.bin_attrs")?),
            };
            Ok::<_, super::btf::Missing>(Sections {
                attrs,
                count,
                array,
                stride,
                name,
                address,
            })
        };
        Ok(Self {
            list: module("list")?,
            name: module("name")?,
            base,
            size,
            sections: sections().ok(),
        })
    }

    fn read(&self, memory: &Memory<'_>, addr: u64) -> Result<Module, Unreadable> {
        let mut module = Module {
            name: memory.string(addr.wrapping_add(self.name), MAX_NAME)?,
            base: memory.u64(addr.wrapping_add(self.base))?,
            size: u64::from(memory.u32(addr.wrapping_add(self.size))?),
            sections: Vec::new(),
        };
        if let Some(sections) = &self.sections {
            let attrs = memory.u64(addr.wrapping_add(sections.attrs))?;
            if attrs != 0 {
                module.sections = sections.read(memory, attrs)?;
            }
        }
        Ok(module)
    }
}

impl Sections {
    fn read(&self, memory: &Memory<'_>, attrs: u64) -> Result<Vec<(String, u64)>, Unreadable> {
        let count = self.count.read(memory, attrs)?.min(MAX_SECTIONS);
        let section = |n| {
            let at = attrs.wrapping_add(self.array + n * self.stride);
            let name = memory.u64(at.wrapping_add(self.name))?;
            let addr = memory.u64(at.wrapping_add(self.address))?;
            Ok((memory.string(name, MAX_NAME)?, addr))
        };
        (0..count).map(section).collect()
    }
}

impl Count {
    /// At most [`MAX_SECTIONS`] where pointers are to be counted.
    fn read(&self, memory: &Memory<'_>, attrs: u64) -> Result<u64, Unreadable> {
        let pointers = match self {
            Count::Member(at) => return Ok(memory.u32(attrs.wrapping_add(*at))?.into()),
            Count::Pointers(at) => memory.u64(attrs.wrapping_add(*at))?,
        };
        for n in 0..MAX_SECTIONS {
            if memory.u64(pointers.wrapping_add(8 * n))? == 0 {
                return Ok(n);
            }
        }
        Ok(MAX_SECTIONS)
    }
}

/// All modules, the one loaded last first.
pub(crate) fn all(kernel: &Kernel, memory: &Memory<'_>) -> Result<Vec<Module>, LookError> {
    let head = kernel.symbol("modules")?;
    let layout = Layout::of(kernel, memory)?;
    let mut modules = Vec::new();
    lists::walk(memory, head, layout.list, MAX_MODULES, |addr| {
        modules.push(layout.read(memory, addr)?);
        Ok(())
    })?;
    Ok(modules)
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
