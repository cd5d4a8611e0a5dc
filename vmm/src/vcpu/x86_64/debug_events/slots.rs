//! The four debug registers while a debugger has some of them.
//!
//! KVM_GUESTDBG_USE_HW_BP replaces the guest's own. So they are filled here for three
//! users: gdb, the step in progress, and the guest.

use gdb::target::{HW_SLOTS, HwBreakpoint, HwKind, HwSlots, VirtAddr};
use kvm_bindings::kvm_debugregs;

const _: () = assert!(HW_SLOTS == 4);

/// R/W of DR7 for instructions, and R/W with LEN (SDM volume 3, 19.2.4).
const EXECUTE: u64 = 0b0000;
const FIELDS: u64 = 0b1111;

/// The user of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Gdb,
    /// The step ends here.
    Step,
    /// The guest, which has it in this one of its own.
    Guest(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    owner: Owner,
    addr: u64,
    /// R/W and LEN.
    fields: u64,
}

/// The contents of the debug registers. gdb's slots keep their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugSlots([Option<Slot>; HW_SLOTS]);

/// Whose slots have fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    /// Bit n for slot n.
    pub gdb: u8,
    pub step: bool,
    /// As the guest sees it in its DR6.
    pub guest: u64,
}

impl DebugSlots {
    pub const NONE: Self = Self([None; HW_SLOTS]);

    pub fn of(slots: &HwSlots) -> Self {
        Self(slots.map(|slot| slot.map(|slot| gdbs(&slot))))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Option::is_none)
    }

    /// Stops the vCPU at `end`. If no slot is free, this takes one of gdb's breakpoints
    /// that cannot be hit before, that is, any but one at `rip`; failing that a
    /// watchpoint, whose slot is returned.
    pub fn stop_at(&mut self, end: VirtAddr, rip: VirtAddr) -> Option<usize> {
        let at = |addr: VirtAddr| move |slot: &Slot| (slot.addr, slot.fields) == (addr.0, EXECUTE);
        let find = |wanted: &dyn Fn(&Slot) -> bool| {
            self.0
                .iter()
                .position(|slot| slot.as_ref().is_some_and(wanted))
        };
        let free = || self.0.iter().position(Option::is_none);
        let other = |slot: &Slot| slot.fields == EXECUTE && !at(rip)(slot);
        let (n, given) = match find(&at(end)).or_else(free).or_else(|| find(&other)) {
            Some(n) => (n, None),
            None => (HW_SLOTS - 1, Some(HW_SLOTS - 1)),
        };
        self.0[n] = Some(Slot {
            owner: Owner::Step,
            addr: end.0,
            fields: EXECUTE,
        });
        given
    }

    /// Adds the guest's enabled slots; false if there is not room for all.
    pub fn add_guest(&mut self, guest: &kvm_debugregs) -> bool {
        for n in (0..HW_SLOTS).filter(|n| guest.dr7 >> (n * 2) & 0b11 != 0) {
            let Some(free) = self.0.iter_mut().find(|slot| slot.is_none()) else {
                return false;
            };
            *free = Some(Slot {
                owner: Owner::Guest(n),
                addr: guest.db[n],
                fields: guest.dr7 >> (16 + n * 4) & FIELDS,
            });
        }
        true
    }

    pub fn addresses(&self) -> [u64; HW_SLOTS] {
        self.0.map(|slot| slot.map_or(0, |slot| slot.addr))
    }

    /// DR7: each slot's global enable, kind and length (SDM volume 3, 19.2.4).
    pub fn dr7(&self) -> u64 {
        const RESERVED_ONE: u64 = 1 << 10;
        let field = |(n, slot): (usize, &Option<Slot>)| {
            slot.map_or(0, |slot| 0b10 << (n * 2) | slot.fields << (16 + n * 4))
        };
        let fields = self.0.iter().enumerate().map(field);
        fields.fold(RESERVED_ONE, |dr7, field| dr7 | field)
    }

    /// Whether these registers hold exactly these slots.
    pub fn are_in(&self, registers: &kvm_debugregs) -> bool {
        registers.db == self.addresses() && registers.dr7 == self.dr7()
    }

    /// Whose slots are meant by DR6. It may name some that are not enabled.
    pub fn hits(&self, dr6: u64) -> Hits {
        let mut hits = Hits::default();
        for (n, slot) in self.0.iter().enumerate() {
            let Some(slot) = slot.filter(|_| dr6 >> n & 1 != 0) else {
                continue;
            };
            match slot.owner {
                Owner::Gdb => hits.gdb |= 1 << n,
                Owner::Step => hits.step = true,
                Owner::Guest(n) => hits.guest |= 1 << n,
            }
        }
        hits
    }
}

fn gdbs(slot: &HwBreakpoint) -> Slot {
    let kind = match slot.kind {
        HwKind::Execute => 0b00,
        HwKind::Write => 0b01,
        HwKind::Access => 0b11,
    };
    let len = match slot.len {
        2 => 0b01,
        4 => 0b11,
        8 => 0b10,
        _ => 0b00,
    };
    Slot {
        owner: Owner::Gdb,
        addr: slot.addr.0,
        fields: kind | len << 2,
    }
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
