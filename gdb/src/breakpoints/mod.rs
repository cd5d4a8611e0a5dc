//! The breakpoints that gdb has planted in the guest: int3 bytes, hardware slots, protected pages.
//!
//! This is bookkeeping only. The session decides which of them a breakpoint
//! gets, and knows what the host can trap at all.

mod conditions;
mod planted;
mod programs;
mod rings;
mod slots;
mod watched;

use std::collections::BTreeMap;

pub(crate) use conditions::{Condition, Conditions};
pub(crate) use planted::{PhysicalMemory, Planted};
pub(crate) use programs::{Kind, Place, Program, ProgramError, Programs};
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

/// Who wants a software breakpoint: gdb; or a tracepoint of its, which stays while
/// the guest is stopped; or the session itself, which wants to know of modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Gdb,
    Trace,
    Modules,
}

/// A software breakpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Software {
    pub placement: Placement,
    pub gdb: bool,
    pub trace: bool,
    pub modules: bool,
}

impl Software {
    fn owner(&mut self, owner: Owner) -> &mut bool {
        match owner {
            Owner::Gdb => &mut self.gdb,
            Owner::Trace => &mut self.trace,
            Owner::Modules => &mut self.modules,
        }
    }
}

/// Everything planted.
#[derive(Debug, Default)]
pub(crate) struct Breakpoints {
    pub planted: Planted,
    pub slots: Slots,
    pub watched: Watched,
    pub conditions: Conditions,
    pub programs: Programs,
    software: BTreeMap<VirtAddr, Software>,
}

/// The breakpoint that one vCPU must not hit while it leaves its RIP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifted {
    byte: Option<PhysAddr>,
    /// Execution slots at this address stay empty.
    pub slot: Option<VirtAddr>,
}

impl Breakpoints {
    pub fn software(&self, addr: VirtAddr) -> Option<Software> {
        self.software.get(&addr).copied()
    }

    /// Whether the breakpoint at `addr` is nothing that gdb has to hear of: a tracepoint,
    /// for instance.
    pub fn is_silent(&self, addr: VirtAddr) -> bool {
        let software = self.software.get(&addr);
        let others = software.is_some_and(|software| !software.gdb);
        others && !self.slots.holds(Holder::Hardware(addr))
    }

    /// gdb's breakpoints at `addr`: one of each kind at most.
    pub fn of_gdb(&self, addr: VirtAddr) -> impl Iterator<Item = Place> + use<> {
        let software = self.software.get(&addr).is_some_and(|it| it.gdb);
        let hardware = self.slots.holds(Holder::Hardware(addr));
        let kinds = [(software, Kind::Software), (hardware, Kind::Hardware)];
        let there = kinds.into_iter().filter(|(is_there, _)| *is_there);
        there.map(move |(_, kind)| Place { addr, kind })
    }

    /// All of gdb's breakpoints.
    pub fn all_of_gdb(&self) -> Vec<Place> {
        let software = self.list().filter(|(_, software)| software.gdb);
        let software = software.map(|(addr, _)| (addr, Kind::Software));
        let hardware = self.slots.hardware().map(|addr| (addr, Kind::Hardware));
        let all = software.chain(hardware);
        all.map(|(addr, kind)| Place { addr, kind }).collect()
    }

    /// Adds an owner to a breakpoint that was just placed, or had one.
    fn place(&mut self, addr: VirtAddr, owner: Owner, placement: Placement) {
        let entry = self.software.entry(addr).or_insert(Software {
            placement,
            gdb: false,
            trace: false,
            modules: false,
        });
        entry.placement = placement;
        *entry.owner(owner) = true;
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
        owner: Owner,
    ) -> Result<()> {
        self.planted.insert(memory, byte, addr)?;
        self.place(addr, owner, Placement::Byte(byte));
        Ok(())
    }

    /// Takes a hardware slot for the software breakpoint at `addr`.
    ///
    /// # Errors
    /// None is left.
    pub fn take_slot(
        &mut self,
        addr: VirtAddr,
        owner: Owner,
    ) -> std::result::Result<(), SlotError> {
        self.slots.add(Holder::Software(addr))?;
        self.place(addr, owner, Placement::Slot);
        Ok(())
    }

    /// Lets the software breakpoint at `addr` wait for its page; whether it may.
    pub fn wait(&mut self, addr: VirtAddr, owner: Owner) -> bool {
        let room = self.pending().len() < MOST_PENDING;
        if room {
            self.place(addr, owner, Placement::Pending);
        }
        room
    }

    /// The software breakpoints that wait for their page.
    pub fn pending(&self) -> Vec<VirtAddr> {
        self.list()
            .filter(|(_, software)| software.placement == Placement::Pending)
            .map(|(addr, _)| addr)
            .collect()
    }

    /// Removes an owner's software breakpoint; one that is not there counts as
    /// removed.
    ///
    /// # Errors
    /// The original byte cannot be written back. The breakpoint is forgotten all
    /// the same.
    pub fn remove_software(
        &mut self,
        memory: &mut impl PhysicalMemory,
        addr: VirtAddr,
        owner: Owner,
    ) -> Result<()> {
        let Some(entry) = self.software.get_mut(&addr) else {
            return Ok(());
        };
        *entry.owner(owner) = false;
        if entry.gdb || entry.trace || entry.modules {
            return Ok(());
        }
        let placement = entry.placement;
        self.software.remove(&addr);
        self.take_out(memory, addr, placement)
    }

    /// Takes the int3 or slot of the breakpoint at `addr` out of the guest; the
    /// owners stay, so that it can be placed again.
    ///
    /// # Errors
    /// The original byte cannot be written back.
    pub fn take_out(
        &mut self,
        memory: &mut impl PhysicalMemory,
        addr: VirtAddr,
        placement: Placement,
    ) -> Result<()> {
        match placement {
            Placement::Byte(byte) => self.planted.remove(memory, byte, addr),
            Placement::Slot => {
                self.slots.remove(Holder::Software(addr));
                Ok(())
            }
            Placement::Pending => Ok(()),
        }
    }

    /// Lifts the breakpoint at `addr`, whose byte is `byte`; `None` when there
    /// is none.
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

    /// Puts back the breakpoint that [`Breakpoints::lift`] took. A slot comes
    /// back by itself when the slots are armed again.
    ///
    /// # Errors
    /// The byte cannot be written.
    pub fn replant(&mut self, memory: &mut impl PhysicalMemory, lifted: Lifted) -> Result<()> {
        match lifted.byte {
            Some(byte) => self.planted.replant(memory, byte),
            None => Ok(()),
        }
    }

    /// Removes everything. Whatever fails, it does the rest, and returns the first error.
    ///
    /// # Errors
    /// An original byte cannot be written back.
    pub fn clear(&mut self, memory: &mut impl PhysicalMemory) -> Result<()> {
        self.software.clear();
        self.slots = Slots::default();
        self.watched = Watched::default();
        self.programs.clear();
        self.planted.clear(memory)
    }

    /// Removes everything but the tracepoints. Whatever fails, it does the rest, and
    /// returns the first error.
    ///
    /// # Errors
    /// An original byte cannot be written back.
    pub fn keep_traced(&mut self, memory: &mut impl PhysicalMemory) -> Result<()> {
        self.watched = Watched::default();
        self.programs.clear();
        self.slots.keep_software();
        let mut result = Ok(());
        for addr in self.software.keys().copied().collect::<Vec<_>>() {
            for owner in [Owner::Gdb, Owner::Modules] {
                let removed = self.remove_software(memory, addr, owner);
                result = result.and(removed);
            }
        }
        result
    }

    /// Forgets the int3s at physical addresses, without touching memory: a reset
    /// has replaced it.
    pub fn forget_planted(&mut self) {
        self.watched = Watched::default();
        self.planted = Planted::default();
        self.software
            .retain(|_, software| !matches!(software.placement, Placement::Byte(_)));
    }

    /// Whether there is a breakpoint of any kind at such an address.
    pub fn any(&self, is_such: impl Fn(VirtAddr) -> bool) -> bool {
        let armed = self.slots.to_arm(None);
        let slots = armed.iter().flatten().map(|slot| slot.addr);
        self.software.keys().copied().chain(slots).any(is_such)
    }

    /// The software breakpoints in the order of their addresses.
    pub fn list(&self) -> impl Iterator<Item = (VirtAddr, Software)> {
        self.software
            .iter()
            .map(|(&addr, &software)| (addr, software))
    }
}
