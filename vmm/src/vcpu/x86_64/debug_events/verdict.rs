//! The owner of a debug exception.

use super::slots::{DebugSlots, Hits};

/// Bits of DR6 (SDM volume 3, 19.2.3).
pub mod dr6 {
    /// B0 to B3: these slots.
    pub const SLOTS: u64 = 0xf;
    /// BD: the guest has asked to be told of accesses to debug registers.
    pub const DETECTED: u64 = 1 << 13;
    /// BS: the trap flag.
    pub const STEP: u64 = 1 << 14;
}

/// The facts about a #DB that KVM exits with.
pub struct Exception<'a> {
    pub dr6: u64,
    pub slots: &'a DebugSlots,
    /// The trap flag is ours.
    pub is_trapping: bool,
    /// The guest's own was set when the instruction began.
    pub guest_flag: bool,
}

/// Its meaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// gdb's slots that fired, bit n for slot n.
    pub gdb: u8,
    /// The instruction where the step ends is next.
    pub at_end: bool,
    /// An instruction is done, and the trap flag told so.
    pub stepped: bool,
    /// The guest is to have a #DB, with these bits in its DR6.
    pub guest: Option<u64>,
}

impl Exception<'_> {
    pub fn verdict(&self) -> Verdict {
        let Hits { gdb, step, guest } = self.slots.hits(self.dr6);
        let stepped = self.dr6 & dr6::STEP != 0;
        let own_step = stepped && self.guest_flag;
        let own = guest | self.dr6 & dr6::DETECTED | if own_step { dr6::STEP } else { 0 };
        // DR6 says nothing of an `int1`.
        let is_int1 = self.dr6 & (dr6::SLOTS | dr6::DETECTED | dr6::STEP) == 0;
        Verdict {
            gdb,
            at_end: step,
            // KVM itself uses the trap flag on AMD's processors, to find out when an
            // NMI may be delivered: that is nobody's.
            stepped: stepped && (self.is_trapping || self.guest_flag),
            guest: (own != 0 || is_int1).then_some(own),
        }
    }
}

#[cfg(test)]
#[path = "verdict_test.rs"]
mod tests;
