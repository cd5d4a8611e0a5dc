//! The kernel's symbols at their run-time addresses.

use std::io;
use std::ops::Range;

use super::image::AREA;
use crate::symbol_file::SymbolFile;

/// Most bytes of all names together. A large kernel has 6 MiB.
pub(crate) const MAX_NAMES: usize = 32 << 20;

/// The kind of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Data,
}

/// One symbol; its name is in the table.
#[derive(Clone, Copy, Debug)]
struct Entry {
    addr: u64,
    name: u32,
    len: u16,
    kind: Kind,
}

/// Names and addresses.
#[derive(Debug, Default)]
pub(crate) struct Symbols {
    names: Vec<u8>,
    /// By address once [`Symbols::seal`]ed.
    entries: Vec<Entry>,
    /// Indices into `entries`, by name, then address.
    by_name: Vec<u32>,
}

/// A symbol to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Symbol<'a> {
    pub name: &'a [u8],
    pub addr: u64,
    pub kind: Kind,
}

impl Symbols {
    /// Those of an ELF file, moved by `slide` where the kernel's image is.
    pub fn of_file(file: &SymbolFile, slide: u64) -> io::Result<Self> {
        let mut symbols = Self::default();
        file.symbols(|symbol| {
            let addr = slid(symbol.addr, slide);
            symbols.push(symbol.name, addr, Kind::Data);
        })?;
        symbols.seal();
        Ok(symbols)
    }

    /// Adds a symbol; one too many, or with too long a name, is left out.
    pub fn push(&mut self, name: &[u8], addr: u64, kind: Kind) {
        let Ok(len) = u16::try_from(name.len()) else {
            return;
        };
        let start = self.names.len();
        if start + name.len() > MAX_NAMES {
            return;
        }
        self.names.extend_from_slice(name);
        self.entries.push(Entry {
            addr,
            name: start as u32,
            len,
            kind,
        });
    }

    /// Makes the added symbols findable.
    pub fn seal(&mut self) {
        self.entries.sort_by_key(|entry| entry.addr);
        let mut by_name: Vec<u32> = (0..self.entries.len() as u32).collect();
        by_name.sort_by_key(|&n| (self.symbol(&self.entries[n as usize]).name, n));
        self.by_name = by_name;
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The address of the first symbol of this name.
    pub fn get(&self, name: &str) -> Option<u64> {
        let name = name.as_bytes();
        let at = |n: &u32| self.symbol(&self.entries[*n as usize]);
        let first = self.by_name.partition_point(|n| at(n).name < name);
        let found = at(self.by_name.get(first)?);
        (found.name == name).then_some(found.addr)
    }

    /// The symbol of this name, if there is but one.
    pub fn unique(&self, name: &[u8]) -> Option<Symbol<'_>> {
        let found = self.by_name.get(self.unique_index(name)?)?;
        Some(self.symbol(&self.entries[*found as usize]))
    }

    /// The code of the function of this name, if there is but one: up to the next symbol.
    pub fn function(&self, name: &[u8]) -> Option<Range<u64>> {
        let found = *self.by_name.get(self.unique_index(name)?)? as usize;
        let Entry { addr, kind, .. } = self.entries[found];
        let behind = self.entries.partition_point(|entry| entry.addr <= addr);
        let end = self.entries.get(behind)?.addr;
        (kind == Kind::Text).then_some(addr..end)
    }

    /// Where a name is among the names, if it is there once.
    fn unique_index(&self, name: &[u8]) -> Option<usize> {
        let at = |n: &u32| self.symbol(&self.entries[*n as usize]);
        let first = self.by_name.partition_point(|n| at(n).name < name);
        let is_it = |place: usize| self.by_name.get(place).is_some_and(|n| at(n).name == name);
        (is_it(first) && !is_it(first + 1)).then_some(first)
    }

    /// By address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().map(|entry| self.symbol(entry))
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        let start = entry.name as usize;
        Symbol {
            name: &self.names[start..start + usize::from(entry.len)],
            addr: entry.addr,
            kind: entry.kind,
        }
    }
}

/// A link-time address at run time. Per-CPU symbols, up to Linux 6.14 linked at
/// 0, and absolute ones do not move with the image.
pub(crate) fn slid(addr: u64, slide: u64) -> u64 {
    if addr >= AREA.start {
        addr.wrapping_add(slide)
    } else {
        addr
    }
}
