//! Watchpoints: in the hardware slots, else by write-protected pages.

use gdbstub::target::TargetResult;
use gdbstub::target::ext::breakpoints::{HwWatchpoint, WatchKind as GdbWatchKind};
use host_io::errors::chain;

use super::Session;
use super::guest::Guest;
use super::memory::{PAGE, pieces};
use super::refusal::{InsertError, PageError};
use super::stop::Reason;
use crate::address::{VcpuId, VirtAddr};
use crate::breakpoints::{Holder, MOST_PAGES, Piece, Rings, Snapshot, WatchKind};
use crate::target::{self, Change};

/// Bytes that are shown as one number.
const NUMBER: usize = 8;

impl From<GdbWatchKind> for WatchKind {
    fn from(kind: GdbWatchKind) -> Self {
        match kind {
            GdbWatchKind::Write => WatchKind::Write,
            GdbWatchKind::Read => WatchKind::Read,
            GdbWatchKind::ReadWrite => WatchKind::Access,
        }
    }
}

impl From<WatchKind> for GdbWatchKind {
    fn from(kind: WatchKind) -> Self {
        match kind {
            WatchKind::Write => GdbWatchKind::Write,
            WatchKind::Read => GdbWatchKind::Read,
            WatchKind::Access => GdbWatchKind::ReadWrite,
        }
    }
}

impl Session<'_> {
    /// gdb's `Z2`, `Z3` and `Z4`.
    fn insert_watch(
        &mut self,
        addr: VirtAddr,
        len: u64,
        kind: WatchKind,
    ) -> Result<(), InsertError> {
        self.check_whole(addr)?;
        let Err(error) = self.watch_by_slots(addr, len, kind) else {
            return Ok(());
        };
        self.watch_by_pages(addr, len, kind)
            .map_err(|pages| InsertError::Watch {
                slots: Box::new(error),
                pages,
            })
    }

    fn watch_by_slots(
        &mut self,
        addr: VirtAddr,
        len: u64,
        kind: WatchKind,
    ) -> Result<(), InsertError> {
        let rings = Rings::accessing(addr);
        if !rings.any_traps(&self.guest.machine.host_traps(), |ring| ring.watchpoint) {
            let what = "data access";
            return Err(InsertError::HostCannot { what, rings });
        }
        let holder = Holder::Watch { addr, len, kind };
        let slots = &mut self.guest.breakpoints.slots;
        slots.add(holder).map_err(InsertError::Slots)?;
        self.warn_of_one_ring("watchpoint", addr, rings, |ring| ring.watchpoint);
        Ok(())
    }

    fn watch_by_pages(
        &mut self,
        addr: VirtAddr,
        len: u64,
        kind: WatchKind,
    ) -> Result<(), PageError> {
        if kind != WatchKind::Write {
            return Err(PageError::NotWrites);
        }
        // Code has to step over its writes.
        let rings = Rings::accessing(addr);
        if !rings.any_traps(&self.guest.machine.host_traps(), |ring| ring.step) {
            return Err(PageError::CannotStep(rings));
        }
        if len > MOST_PAGES as u64 * PAGE {
            return Err(PageError::TooLong { len });
        }
        let places = self.guest.ram_at(self.selection.focus(), addr, len)?;
        let watched = &mut self.guest.breakpoints.watched;
        watched.add(addr, len, places).map_err(PageError::TooMany)?;
        self.warn_of_one_ring("watchpoint", addr, rings, |ring| ring.step);
        Ok(())
    }

    /// The change that the step of `vcpu` has made to watched memory.
    pub(super) fn changed_since(&mut self, before: &Snapshot, vcpu: VcpuId) -> Option<Reason> {
        match before.change(&self.guest.machine) {
            Ok(change) => self.judge_change(vcpu, &change?),
            Err(error) => {
                let error = chain(&error);
                self.notice(format!("watched memory cannot be compared: {error}"));
                None
            }
        }
    }

    /// A stop for a change of watched bytes, if they still are, with a line that
    /// says what it was.
    pub(super) fn judge_change(&mut self, vcpu: VcpuId, change: &Change) -> Option<Reason> {
        let addr = self.guest.breakpoints.watched.addr_of(change.addr)?;
        let (old, new) = (number(&change.old), number(&change.new));
        let at = match change.new.len() {
            1 => format!("in the byte at {:#x}", addr.0),
            len if len <= NUMBER => format!("in {len} bytes at {:#x}", addr.0),
            len => format!("in the first of {len} bytes at {:#x}", addr.0),
        };
        self.notice(format!("{vcpu}: {old} became {new} {at}"));
        let kind = WatchKind::Write;
        Some(Reason::Watch { addr, kind })
    }
}

impl Guest<'_> {
    /// The RAM that is mapped at `len` bytes from `addr` on.
    fn ram_at(&self, focus: VcpuId, addr: VirtAddr, len: u64) -> Result<Vec<Piece>, PageError> {
        let mut places = Vec::new();
        for (virt, len) in pieces(addr, len as usize) {
            let phys = self
                .translate_for_any(focus, virt)
                .map_err(|source| PageError::Unmapped { addr: virt, source })?
                .phys;
            if self.machine.read_physical(phys, &mut [0]).is_err() {
                return Err(PageError::NoRam { addr: virt });
            }
            let len = len as u64;
            places.push(Piece { virt, phys, len });
        }
        Ok(places)
    }

    /// Takes a watchpoint out of wherever it is.
    fn remove_watch(&mut self, addr: VirtAddr, len: u64, kind: WatchKind) {
        let holder = Holder::Watch { addr, len, kind };
        self.breakpoints.slots.remove(holder);
        if kind == WatchKind::Write {
            self.breakpoints.watched.remove(addr, len);
        }
    }

    /// The watched bytes before a vCPU steps alone.
    pub(super) fn snapshot(&self) -> target::Result<Snapshot> {
        self.breakpoints.watched.snapshot(&self.machine)
    }

    /// Whether gdb watches the byte at `addr`, in whichever way.
    pub(super) fn is_watched(&self, addr: VirtAddr) -> bool {
        self.breakpoints.slots.watches(addr) || self.breakpoints.watched.covers(addr)
    }
}

impl HwWatchpoint for Session<'_> {
    fn add_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        let result = self.insert_watch(VirtAddr(addr), len, kind.into());
        self.answer("watchpoint", addr, result)
    }

    fn remove_hw_watchpoint(
        &mut self,
        addr: u64,
        len: u64,
        kind: GdbWatchKind,
    ) -> TargetResult<bool, Self> {
        self.while_stopped()?;
        self.guest.remove_watch(VirtAddr(addr), len, kind.into());
        Ok(true)
    }
}

/// The first bytes as a little-endian number.
fn number(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(NUMBER).rev();
    let digits: String = shown.map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}
