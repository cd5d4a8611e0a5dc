//! The holders of the hardware slots (DR0 to DR3).

use std::fmt;

use crate::target::{HW_SLOTS, HwBreakpoint, HwKind, HwSlots, VirtAddr};

/// The accesses that a watchpoint watches for, as gdb asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchKind {
    Write,
    /// Watched as `Access`, since x86 has no other; gdb compares the value and
    /// drops the hits that were writes.
    Read,
    Access,
}

/// A breakpoint or watchpoint that needs slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// gdb's software breakpoint that could not be an int3.
    Software(VirtAddr),
    Hardware(VirtAddr),
    Watch {
        addr: VirtAddr,
        /// In bytes, as gdb asked.
        len: u64,
        kind: WatchKind,
    },
}

/// The slots are not enough.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("all {HW_SLOTS} hardware slots are taken: {0}")]
    Exhausted(String),
    #[error("{len} bytes at {addr:#x} are more than {HW_SLOTS} hardware slots can watch")]
    TooWide { addr: u64, len: u64 },
    #[error("0 bytes at {0:#x} cannot be watched")]
    Empty(u64),
}

/// The holders and what they need.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    held: Vec<(Holder, Vec<HwBreakpoint>)>,
}

impl Slots {
    /// Gives `holder` the slots that it needs. Adding twice is adding once.
    ///
    /// # Errors
    /// Too few slots are left; nothing has changed then.
    pub fn add(&mut self, holder: Holder) -> Result<(), SlotError> {
        if self.holds(holder) {
            return Ok(());
        }
        let needs = holder.needs()?;
        let mut all = self.distinct();
        all.extend(
            needs
                .iter()
                .filter(|need| !all.contains(need))
                .copied()
                .collect::<Vec<_>>(),
        );
        if all.len() > HW_SLOTS {
            return Err(SlotError::Exhausted(self.to_string()));
        }
        self.held.push((holder, needs));
        Ok(())
    }

    /// Takes them away again, if it has any.
    pub fn remove(&mut self, holder: Holder) {
        self.held.retain(|(held, _)| *held != holder);
    }

    /// Takes all away but those of software breakpoints.
    pub fn keep_software(&mut self) {
        self.held
            .retain(|(held, _)| matches!(held, Holder::Software(_)));
    }

    pub fn holds(&self, holder: Holder) -> bool {
        self.held.iter().any(|(held, _)| *held == holder)
    }

    /// Where gdb's hardware breakpoints are.
    pub fn hardware(&self) -> impl Iterator<Item = VirtAddr> {
        self.held.iter().filter_map(|(holder, _)| match holder {
            Holder::Hardware(addr) => Some(*addr),
            Holder::Software(_) | Holder::Watch { .. } => None,
        })
    }

    /// Whether a watchpoint covers the byte at `addr`.
    pub fn watches(&self, addr: VirtAddr) -> bool {
        let covers = |slot: &HwBreakpoint| {
            let offset = addr.0.checked_sub(slot.addr.0);
            slot.kind != HwKind::Execute && offset.is_some_and(|n| n < slot.len.into())
        };
        self.distinct().iter().any(covers)
    }

    pub fn executes_at(&self, addr: VirtAddr) -> bool {
        self.distinct().iter().any(|slot| executes_at(slot, addr))
    }

    /// The slots to arm, without execution slots at `except`.
    pub fn to_arm(&self, except: Option<VirtAddr>) -> HwSlots {
        let mut slots = [None; HW_SLOTS];
        for (slot, needed) in slots.iter_mut().zip(self.distinct()) {
            if !except.is_some_and(|addr| executes_at(&needed, addr)) {
                *slot = Some(needed);
            }
        }
        slots
    }

    /// Who wanted this slot.
    pub fn holders(&self, slot: HwBreakpoint) -> impl Iterator<Item = Holder> {
        let wanted = move |(_, needs): &&(Holder, Vec<HwBreakpoint>)| needs.contains(&slot);
        self.held.iter().filter(wanted).map(|(holder, _)| *holder)
    }

    /// The slots needed, each once: equal ones are shared.
    fn distinct(&self) -> Vec<HwBreakpoint> {
        let mut distinct = Vec::new();
        for need in self.held.iter().flat_map(|(_, needs)| needs) {
            if !distinct.contains(need) {
                distinct.push(*need);
            }
        }
        distinct
    }
}

fn executes_at(slot: &HwBreakpoint, addr: VirtAddr) -> bool {
    slot.kind == HwKind::Execute && slot.addr == addr
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (holder, _)) in self.held.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{holder}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Holder::Software(addr) => write!(f, "break {:#x}", addr.0),
            Holder::Hardware(addr) => write!(f, "hbreak {:#x}", addr.0),
            Holder::Watch { addr, len, kind } => {
                let command = match kind {
                    WatchKind::Write => "watch",
                    WatchKind::Read => "rwatch",
                    WatchKind::Access => "awatch",
                };
                write!(f, "{command} {:#x} ({len} bytes)", addr.0)
            }
        }
    }
}

impl Holder {
    fn needs(self) -> Result<Vec<HwBreakpoint>, SlotError> {
        match self {
            Holder::Software(addr) | Holder::Hardware(addr) => Ok(vec![HwBreakpoint {
                addr,
                len: 1,
                kind: HwKind::Execute,
            }]),
            Holder::Watch { addr, len, kind } => watch(addr.0, len, kind),
        }
    }
}

/// Covers `len` bytes at `addr` with aligned pieces of 1, 2, 4 or 8 bytes
/// (SDM volume 3, 18.2.5).
fn watch(addr: u64, len: u64, kind: WatchKind) -> Result<Vec<HwBreakpoint>, SlotError> {
    let too_wide = || SlotError::TooWide { addr, len };
    let kind = match kind {
        WatchKind::Write => HwKind::Write,
        WatchKind::Read | WatchKind::Access => HwKind::Access,
    };
    if len == 0 {
        return Err(SlotError::Empty(addr));
    }
    let end = addr.checked_add(len).ok_or_else(too_wide)?;
    let mut pieces = Vec::new();
    let mut at = addr;
    while at < end {
        if pieces.len() == HW_SLOTS {
            return Err(too_wide());
        }
        let fits = |size: &u8| at.is_multiple_of(u64::from(*size)) && u64::from(*size) <= end - at;
        let size = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
        pieces.push(HwBreakpoint {
            addr: VirtAddr(at),
            len: size,
            kind,
        });
        at += u64::from(size);
    }
    Ok(pieces)
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod tests;
