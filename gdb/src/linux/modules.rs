//! Loaded modules, and gdb's commands for their symbols.

use std::ops::Range;

use super::lists;
use super::memory::{Memory, Unreadable};
use super::module_parts::{Part, Parts};
use super::module_sections::{MAX_SECTIONS, Sections};
use super::{Kernel, LookError};

/// Most modules of a kernel.
pub(super) const MAX_MODULES: usize = 4096;
/// Longest name of a module.
const MAX_NAME: usize = 128;

/// The address that gdb is given for sections whose memory the kernel has freed. It is
/// not canonical, so that a breakpoint there is refused. Without an address gdb would put
/// them at 0, and wait for such a breakpoint in vain. The upper bits are those of a
/// pointer that Linux has poisoned (POISON_POINTER_DELTA).
const FREED: u64 = 0xdead << 48;
/// The distance between two of them.
const FREED_STRIDE: u64 = 1 << 32;

/// A module that has a place in the list and nothing else yet, or no longer, as Linux's
/// own lists leave it out (`enum module_state`).
const UNFORMED: u32 = 3;

/// Whether gdb has an address from where [`FREED`] sections are.
pub(crate) fn is_freed(addr: u64) -> bool {
    (FREED..FREED + MAX_SECTIONS * FREED_STRIDE).contains(&addr)
}

/// A module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Module {
    pub name: String,
    /// Address of its `struct module`.
    pub addr: u64,
    /// Its memory. That of the initialisation is there until it is done.
    pub parts: Vec<Part>,
    /// `enum module_state`.
    pub state: u32,
    /// Name and address of each section, if the kernel keeps them (CONFIG_SYSFS,
    /// CONFIG_KALLSYMS).
    pub sections: Vec<(String, u64)>,
}

impl Module {
    /// Address of its code.
    pub fn base(&self) -> u64 {
        self.parts.first().map_or(0, |part| part.start)
    }

    /// Size in bytes of the memory that stays of it.
    pub fn size(&self) -> u64 {
        let stays = self.parts.iter().filter(|part| !part.kind.init);
        stays.map(|part| part.len).sum()
    }

    /// Whether its initialisation is not done.
    pub fn is_coming(&self) -> bool {
        self.parts.iter().any(|part| part.kind.init)
    }

    /// Where its code is: first that which stays.
    pub fn code(&self) -> Vec<Range<u64>> {
        let code = self.parts.iter().filter(|part| part.kind.code);
        code.map(Part::range).collect()
    }

    /// The part of its memory that has this address.
    pub fn part_at(&self, addr: u64) -> Option<&Part> {
        self.parts.iter().find(|part| part.contains(addr))
    }

    /// gdb's command that loads the module's symbols.
    pub fn add_symbol_file(&self) -> String {
        let text = self.sections.iter().find(|(name, _)| name == ".text");
        let text = text.map_or(self.base(), |(_, addr)| *addr);
        let mut line = format!("add-symbol-file {}.ko {text:#x}", self.name);
        let mut freed = (FREED..).step_by(FREED_STRIDE as usize);
        let others = |(name, _): &&(String, u64)| name != ".text" && has_symbols(name);
        for (name, addr) in self.sections.iter().filter(others) {
            let addr = match self.part_at(*addr) {
                Some(_) => Some(*addr),
                None => freed.next(),
            };
            if let Some(addr) = addr {
                line.push_str(&format!(" -s {name} {addr:#x}"));
            }
        }
        line
    }
}

/// Whether a section has code or variables of the source's. Those per CPU are where
/// gdb has them, at 0.
fn has_symbols(section: &str) -> bool {
    const BEGINNINGS: [&str; 6] = [".data", ".rodata", ".bss", ".init.", ".exit.", ".ref."];
    let known = BEGINNINGS.iter().any(|begin| section.starts_with(begin));
    (known || section.contains("text")) && section != ".data..percpu"
}

/// Where the members of the structures are.
struct Layout {
    list: u64,
    name: u64,
    state: Option<u64>,
    parts: Parts,
    sections: Option<Sections>,
}

impl Layout {
    fn of(kernel: &Kernel, memory: &Memory<'_>) -> Result<Self, LookError> {
        let btf = kernel.btf(memory)?;
        Ok(Self {
            list: btf.offset("module", "list")?,
            name: btf.offset("module", "name")?,
            state: btf.offset("module", "state").ok(),
            parts: Parts::of(btf)?,
            sections: Sections::of(btf).ok(),
        })
    }

    /// The module at `addr`, without its sections.
    fn read(&self, memory: &Memory<'_>, addr: u64) -> Result<Module, Unreadable> {
        let state = self.state.map(|at| memory.u32(addr.wrapping_add(at)));
        Ok(Module {
            name: memory.string(addr.wrapping_add(self.name), MAX_NAME)?,
            addr,
            state: state.transpose()?.unwrap_or_default(),
            parts: self.parts.read(memory, addr)?,
            sections: Vec::new(),
        })
    }

    fn read_sections(&self, memory: &Memory<'_>, module: &mut Module) -> Result<(), Unreadable> {
        if let Some(sections) = &self.sections {
            module.sections = sections.read(memory, module.addr)?;
        }
        Ok(())
    }
}

/// All modules, the one loaded last first.
pub(crate) fn all(kernel: &Kernel, memory: &Memory<'_>) -> Result<Vec<Module>, LookError> {
    let layout = Layout::of(kernel, memory)?;
    let mut modules = walk(&layout, kernel, memory)?;
    for module in &mut modules {
        layout.read_sections(memory, module)?;
    }
    Ok(modules)
}

/// The same without their sections, which takes less time.
pub(crate) fn brief(kernel: &Kernel, memory: &Memory<'_>) -> Result<Vec<Module>, LookError> {
    walk(&Layout::of(kernel, memory)?, kernel, memory)
}

fn walk(layout: &Layout, kernel: &Kernel, memory: &Memory<'_>) -> Result<Vec<Module>, LookError> {
    let head = kernel.symbol("modules")?;
    let mut modules = Vec::new();
    lists::walk(memory, head, layout.list, MAX_MODULES, |addr| {
        modules.push(layout.read(memory, addr)?);
        Ok(())
    })?;
    modules.retain(|module| module.state != UNFORMED);
    Ok(modules)
}

#[cfg(test)]
#[path = "modules_test.rs"]
mod tests;
