//! What gdb has planted in the guest: int3 bytes, hardware slots, protected pages.
//!
//! This is bookkeeping only. Which of the two a breakpoint gets, and what the
//! host can trap at all, is decided by the session.

mod conditions;
mod planted;
mod rings;
mod slots;
mod watched;

use std::collections::BTreeMap;

pub(crate) use conditions::{Condition, Conditions};
pub(crate) use planted::{PhysicalMemory, Planted};
pub(crate) use rings::Rings;
pub(crate) use slots::{Holder, SlotError, Slots, WatchKind};
pub(crate) use watched::{MOST_PAGES, Piece, Snapshot, TooManyPages, Watched};

use crate::target::{PhysAddr, Result, VirtAddr};

/// Software breakpoints that may wait for their pages. Each is looked for at every
/// resume.
const MOST_PENDING: usize = 256;

/// Where a software breakpoint of gdb's went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Placement {
    /// An int3 at this byte.
    Byte(PhysAddr),
    /// A hardware slot: the page is not there yet, or the host cannot trap int3.
    Slot,
    /// Nowhere yet: the page is not there, and no slot is left.
    Pending,
}

/// Everything planted.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    pub planted: Planted,
    pub slots: Slots,
    pub watched: Watched,
    pub conditions: Conditions,
    software: BTreeMap<VirtAddr, Placement>,
}

/// What one vCPU must not trip over while it leaves the breakpoint at its RIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifted {
    byte: Option<PhysAddr>,
    /// Execution slots at this address stay empty.
    pub slot: Option<VirtAddr>,
}

impl Breakpoints {
    pub fn software(&self, addr: VirtAddr) -> Option<Placement> {
        self.software.get(&addr).copied()
    }

    /// Plants an int3 for the software breakpoint at `addr`.
    ///
    /// # Errors
    /// The byte is no RAM; nothing has changed then.
    pub fn plant(
        &mut self,
        memory: &mut impl PhysicalMemory,
        addr: VirtAddr,
        byte: PhysAddr,
    ) -> Result<()> {
        self.planted.insert(memory, byte, addr)?;
        self.software.insert(addr, Placement::Byte(byte));
        Ok(())
    }

    /// Takes a hardware slot for the software breakpoint at `addr`.
    ///
    /// # Errors
    /// None is left.
    pub fn take_slot(&mut self, addr: VirtAddr) -> std::result::Result<(), SlotError> {
        self.slots.add(Holder::Software(addr))?;
        self.software.insert(addr, Placement::Slot);
        Ok(())
    }

    /// Lets the software breakpoint at `addr` wait for its page; whether it may.
    pub fn wait(&mut self, addr: VirtAddr) -> bool {
        let room = self.pending().len() < MOST_PENDING;
        if room {
            self.software.insert(addr, Placement::Pending);
        }
        room
    }

    /// The software breakpoints that wait for their page.
    pub fn pending(&self) -> Vec<VirtAddr> {
        self.list()
            .filter(|(_, placement)| *placement == Placement::Pending)
            .map(|(addr, _)| addr)
            .collect()
    }

    /// Removes a software breakpoint; one that is not there counts as removed.
    ///
    /// # Errors
    /// The original byte cannot be written back. The breakpoint is forgotten all
    /// the same.
    pub fn remove_software(
        &mut self,
        memory: &mut impl PhysicalMemory,
        addr: VirtAddr,
    ) -> Result<()> {
        match self.software.remove(&addr) {
            Some(Placement::Byte(byte)) => self.planted.remove(memory, byte, addr),
            Some(Placement::Slot) => {
                self.slots.remove(Holder::Software(addr));
                Ok(())
            }
            Some(Placement::Pending) | None => Ok(()),
        }
    }

    /// Takes out of the way what stands at `addr`, whose byte is `byte`; `None`
    /// when nothing does.
    ///
    /// # Errors
    /// The byte cannot be written.
    pub fn lift(
        &mut self,
        memory: &mut impl PhysicalMemory,
        addr: VirtAddr,
        byte: Option<PhysAddr>,
    ) -> Result<Option<Lifted>> {
        let lifted = Lifted {
            byte: byte.filter(|&byte| self.planted.contains(byte)),
            slot: self.slots.executes_at(addr).then_some(addr),
        };
        if let Some(byte) = lifted.byte {
            self.planted.lift(memory, byte)?;
        }
        Ok((lifted != Lifted::default()).then_some(lifted))
    }

    /// Puts back what [`Breakpoints::lift`] took. The slot comes back by itself
    /// when the slots are armed again.
    ///
    /// # Errors
    /// The byte cannot be written.
    pub fn replant(&mut self, memory: &mut impl PhysicalMemory, lifted: Lifted) -> Result<()> {
        match lifted.byte {
            Some(byte) => self.planted.replant(memory, byte),
            None => Ok(()),
        }
    }

    /// Removes everything. Goes on after an error and returns the first.
    ///
    /// # Errors
    /// An original byte cannot be written back.
    pub fn clear(&mut self, memory: &mut impl PhysicalMemory) -> Result<()> {
        self.software.clear();
        self.slots = Slots::default();
        self.watched = Watched::default();
        self.planted.clear(memory)
    }

    /// Forgets what lies at physical addresses, without touching memory: a reset
    /// has replaced it.
    pub fn forget_planted(&mut self) {
        self.watched = Watched::default();
        self.planted = Planted::default();
        self.software
            .retain(|_, placement| !matches!(placement, Placement::Byte(_)));
    }

    /// The software breakpoints in the order of their addresses.
    pub fn list(&self) -> impl Iterator<Item = (VirtAddr, Placement)> {
        self.software
            .iter()
            .map(|(&addr, &placement)| (addr, placement))
    }
}
