//! Write watchpoints by page protection, for ranges that the hardware slots cannot watch.
//!
//! They watch the physical bytes that a virtual range had when it was set. A
//! vCPU that meets a protected page steps alone with all of them open; a
//! comparison then finds the changes.

use std::collections::BTreeSet;
use std::ops::Range;

use super::PhysicalMemory;
use crate::target::{Change, PhysAddr, Result, VirtAddr};

/// Pages that may be protected at once. Each costs a system call at a stop, and
/// its bytes are compared after each step.
pub(crate) const MOST_PAGES: usize = 64;
/// Size of a page.
const PAGE: u64 = 4096;

/// A contiguous part of a watched range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub virt: VirtAddr,
    pub phys: PhysAddr,
    /// In bytes; it does not cross a page.
    pub len: u64,
}

/// A watchpoint of gdb's.
#[derive(Debug)]
struct Watch {
    addr: VirtAddr,
    len: u64,
    pieces: Vec<Piece>,
}

/// There are too many pages.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it would be {0} write-protected pages, more than {MOST_PAGES}")]
pub(crate) struct TooManyPages(usize);

/// All watchpoints of this kind.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    watches: Vec<Watch>,
}

/// The watched bytes at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot(Vec<(PhysAddr, Vec<u8>)>);

impl Watched {
    /// Watches `pieces`. Adding twice is replacing.
    ///
    /// # Errors
    /// There would be too many pages; nothing has changed then, but that a watch
    /// of the same range is gone.
    pub fn add(
        &mut self,
        addr: VirtAddr,
        len: u64,
        pieces: Vec<Piece>,
    ) -> std::result::Result<(), TooManyPages> {
        self.remove(addr, len);
        let page = |piece: &Piece| piece.phys.0 / PAGE;
        let pages: BTreeSet<_> = self.pieces().chain(&pieces).map(page).collect();
        if pages.len() > MOST_PAGES {
            return Err(TooManyPages(pages.len()));
        }
        self.watches.push(Watch { addr, len, pieces });
        Ok(())
    }

    /// Takes it away again, if there is one.
    pub fn remove(&mut self, addr: VirtAddr, len: u64) {
        self.watches
            .retain(|watch| (watch.addr, watch.len) != (addr, len));
    }

    fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.watches.iter().flat_map(|watch| &watch.pieces)
    }

    /// The pages to protect.
    pub fn ranges(&self) -> Vec<Range<PhysAddr>> {
        let range = |piece: &Piece| piece.phys..PhysAddr(piece.phys.0 + piece.len);
        self.pieces().map(range).collect()
    }

    /// The address by which gdb watches a physical byte.
    pub fn addr_of(&self, byte: PhysAddr) -> Option<VirtAddr> {
        self.pieces().find_map(|piece| {
            let offset = byte.0.checked_sub(piece.phys.0)?;
            (offset < piece.len).then(|| VirtAddr(piece.virt.0 + offset))
        })
    }

    /// Whether gdb watches the byte at `addr`.
    pub fn covers(&self, addr: VirtAddr) -> bool {
        let covers = |watch: &Watch| {
            let offset = addr.0.checked_sub(watch.addr.0);
            offset.is_some_and(|offset| offset < watch.len)
        };
        self.watches.iter().any(covers)
    }

    /// Remembers the watched bytes.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn snapshot(&self, memory: &impl PhysicalMemory) -> Result<Snapshot> {
        let read = |piece: &Piece| {
            let mut bytes = vec![0; piece.len as usize];
            memory.read(piece.phys, &mut bytes)?;
            Ok((piece.phys, bytes))
        };
        Ok(Snapshot(self.pieces().map(read).collect::<Result<_>>()?))
    }

    /// The watches, as gdb asked for them.
    pub fn list(&self) -> impl Iterator<Item = (VirtAddr, u64)> {
        self.watches.iter().map(|watch| (watch.addr, watch.len))
    }
}

impl Snapshot {
    /// The first change since.
    ///
    /// # Errors
    /// The bytes cannot be read any more.
    pub fn change(&self, memory: &impl PhysicalMemory) -> Result<Option<Change>> {
        for (start, old) in &self.0 {
            let mut new = vec![0; old.len()];
            memory.read(*start, &mut new)?;
            let mut differs = (0..old.len()).filter(|&n| old[n] != new[n]);
            if let Some(first) = differs.next() {
                let last = differs.next_back().unwrap_or(first);
                return Ok(Some(Change {
                    addr: PhysAddr(start.0 + first as u64),
                    old: old[first..=last].to_vec(),
                    new: new[first..=last].to_vec(),
                }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "watched_test.rs"]
mod tests;
