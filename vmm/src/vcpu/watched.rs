//! RAM whose changes by the guest stop it for gdb.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gdb::target::{Change, PhysAddr};
use vm_memory::{Bytes, GuestAddress};

use crate::guest_mapping::PAGE;
use crate::kvm::{Error, Vm, failed};

/// Ranges of RAM in write-protected pages, for every vCPU. Changed while all are
/// stopped.
pub struct WatchedRam {
    vm: Arc<Vm>,
    /// Whether there are any: without ranges, an exit costs only this check.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ranges: Vec<Range<u64>>,
    pages: BTreeSet<u64>,
}

/// The outcome of a write that KVM emulated and could not do.
#[derive(Debug, PartialEq, Eq)]
pub enum Written {
    /// It is not one to a protected page.
    NotHere,
    Done,
    /// It is done, and watched bytes are others now.
    Changed(Change),
}

impl WatchedRam {
    pub fn new(vm: Arc<Vm>) -> Self {
        Self {
            vm,
            any: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Whether a page is protected.
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    /// Watches `ranges` and nothing else.
    pub fn set(&self, ranges: &[Range<u64>]) -> Result<(), Error> {
        let mut state = self.lock();
        let pages: BTreeSet<u64> = ranges.iter().flat_map(pages).collect();
        // `any` is set before pages are protected, so that no protected page is missed.
        self.any.store(true, Ordering::Relaxed);
        state.ranges = ranges.to_vec();
        for page in state.pages.difference(&pages).copied().collect::<Vec<_>>() {
            self.set_writable(page, true)?;
            state.pages.remove(&page);
        }
        for page in pages {
            if !state.pages.contains(&page) {
                self.set_writable(page, false)?;
                state.pages.insert(page);
            }
        }
        self.any.store(!state.pages.is_empty(), Ordering::Relaxed);
        Ok(())
    }

    fn set_writable(&self, page: u64, writable: bool) -> Result<(), Error> {
        self.vm
            .mapping()
            .set_writable(GuestAddress(page), writable)
            .map_err(failed("mprotect of guest RAM"))
    }

    /// Does the write, if it is one to a protected page.
    pub fn write(&self, addr: u64, data: &[u8]) -> Written {
        if !self.any() {
            return Written::NotHere;
        }
        // Other vCPUs that write to protected pages wait here, so that the
        // bytes read before are those that this write replaces.
        let state = self.lock();
        let range = addr..addr.saturating_add(data.len() as u64);
        if !pages(&range).any(|page| state.pages.contains(&page)) {
            return Written::NotHere;
        }
        let mut old = vec![0; data.len()];
        let memory = self.vm.memory();
        let replaced = memory
            .read_slice(&mut old, GuestAddress(addr))
            .and_then(|()| memory.write_slice(data, GuestAddress(addr)));
        if replaced.is_err() {
            return Written::NotHere;
        }
        match changed(&state.ranges, addr, &old, data) {
            Some(bytes) => Written::Changed(Change {
                addr: PhysAddr(addr + *bytes.start() as u64),
                old: old[bytes.clone()].to_vec(),
                new: data[bytes].to_vec(),
            }),
            None => Written::Done,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages that a range touches.
fn pages(range: &Range<u64>) -> impl Iterator<Item = u64> + use<> {
    let first = range.start / PAGE * PAGE;
    (first..range.end).step_by(PAGE as usize)
}

/// From the first to the last byte that is watched and differs.
fn changed(
    ranges: &[Range<u64>],
    addr: u64,
    old: &[u8],
    new: &[u8],
) -> Option<RangeInclusive<usize>> {
    let watched = |n: usize| {
        let at = addr + n as u64;
        ranges.iter().any(|range| range.contains(&at))
    };
    let mut changed = (0..old.len()).filter(|&n| old[n] != new[n] && watched(n));
    let first = changed.next()?;
    Some(first..=changed.next_back().unwrap_or(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_touches_all_of_its_pages() {
        let touched = |range| pages(&range).collect::<Vec<_>>();
        assert_eq!(touched(0x1fff..0x2000), [0x1000]);
        assert_eq!(touched(0x1fff..0x2001), [0x1000, 0x2000]);
        assert_eq!(touched(0x2000..0x4000), [0x2000, 0x3000]);
    }

    #[test]
    fn only_watched_bytes_that_differ_are_a_change() {
        let ranges = [0x1004..0x1006, 0x1010..0x1018];
        let change = |addr, old: &[u8], new: &[u8]| changed(&ranges, addr, old, new);
        assert_eq!(change(0x1000, &[0; 8], &[1, 1, 1, 1, 0, 0, 1, 1]), None);
        assert_eq!(
            change(0x1000, &[0; 8], &[1, 1, 1, 1, 0, 1, 1, 1]),
            Some(5..=5)
        );
        assert_eq!(change(0x1016, &[0; 4], &[0, 0, 1, 1]), None);
        assert_eq!(change(0x1016, &[0; 4], &[9; 4]), Some(0..=1));
    }
}
