//! The memory that a module has.

use std::ops::Range;

use super::btf::{Btf, Missing};
use super::memory::{Memory, Unreadable};

/// The kinds of memory from Linux 6.4 on, by `enum mod_mem_type`.
pub(super) const KINDS: [Kind; 7] = [
    Kind::new(".text", true, false),
    Kind::new(".data", false, false),
    Kind::new(".rodata", false, false),
    Kind::new(".ro_after_init", false, false),
    Kind::new(".init.text", true, true),
    Kind::new(".init.data", false, true),
    Kind::new(".init.rodata", false, true),
];

/// The purpose of a piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub name: &'static str,
    pub code: bool,
    /// Only while the module is initialised.
    pub init: bool,
}

impl Kind {
    const fn new(name: &'static str, code: bool, init: bool) -> Self {
        Self { name, code, init }
    }
}

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub kind: Kind,
    pub start: u64,
    pub len: u64,
}

impl Part {
    pub fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.len)
    }

    pub fn contains(&self, addr: u64) -> bool {
        addr.checked_sub(self.start)
            .is_some_and(|within| within < self.len)
    }
}

/// Where the members of the structures are.
pub(super) enum Parts {
    /// From 6.4 on.
    Array(Array),
    /// Before.
    Layouts(Layouts),
}

/// An array of `struct module_memory`, by kind.
pub(super) struct Array {
    mem: u64,
    count: u64,
    stride: u64,
    base: u64,
    size: u64,
}

/// A `struct module_layout` for what stays and one for the initialisation, each with
/// its code first.
pub(super) struct Layouts {
    layouts: [u64; 2],
    base: u64,
    size: u64,
    text_size: u64,
}

impl Parts {
    pub fn of(btf: &Btf) -> Result<Self, Missing> {
        let module = |path: &str| btf.offset("module", path);
        if let Ok(mem) = module("mem") {
            return Ok(Self::Array(Array {
                mem,
                count: btf.elements("module", "mem")?,
                stride: btf.size("module_memory")?,
                base: btf.offset("module_memory", "base")?,
                size: btf.offset("module_memory", "size")?,
            }));
        }
        Ok(Self::Layouts(Layouts {
            layouts: [module("core_layout")?, module("init_layout")?],
            base: btf.offset("module_layout", "base")?,
            size: btf.offset("module_layout", "size")?,
            text_size: btf.offset("module_layout", "text_size")?,
        }))
    }

    /// The present parts of the module at `module`; the code that stays is first.
    pub fn read(&self, memory: &Memory<'_>, module: u64) -> Result<Vec<Part>, Unreadable> {
        let mut parts = match self {
            Self::Array(array) => array.read(memory, module)?,
            Self::Layouts(layouts) => layouts.read(memory, module)?,
        };
        parts.retain(|part| part.start != 0 && part.len != 0);
        Ok(parts)
    }
}

impl Array {
    fn read(&self, memory: &Memory<'_>, module: u64) -> Result<Vec<Part>, Unreadable> {
        let part = |(n, kind): (u64, Kind)| {
            let at = module.wrapping_add(self.mem + n * self.stride);
            Ok(Part {
                kind,
                start: memory.u64(at.wrapping_add(self.base))?,
                len: memory.u32(at.wrapping_add(self.size))?.into(),
            })
        };
        (0..self.count).zip(KINDS).map(part).collect()
    }
}

impl Layouts {
    fn read(&self, memory: &Memory<'_>, module: u64) -> Result<Vec<Part>, Unreadable> {
        let mut parts = Vec::new();
        for (layout, kinds) in self.layouts.iter().zip([&KINDS[..2], &KINDS[4..6]]) {
            let at = module.wrapping_add(*layout);
            let start = memory.u64(at.wrapping_add(self.base))?;
            let size = u64::from(memory.u32(at.wrapping_add(self.size))?);
            let text = memory.u32(at.wrapping_add(self.text_size))?;
            let text = u64::from(text).min(size);
            let halves = [(start, text), (start.wrapping_add(text), size - text)];
            parts.extend(kinds.iter().zip(halves).map(|(kind, (start, len))| Part {
                kind: *kind,
                start,
                len,
            }));
        }
        Ok(parts)
    }
}
