//! The debug facilities of a vCPU, as the debugger asks for them and as KVM arms them.

use gdb::target::{HW_SLOTS, HwKind, HwSlots};
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};

/// Debug facilities to arm on a vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugControl {
    pub slots: HwSlots,
    /// Intercept int3.
    pub int3: bool,
    pub step: bool,
    /// A `hlt` is stepped over without KVM (see `hlt`).
    pub hlt_by_hand: bool,
}

impl DebugControl {
    pub fn is_off(&self) -> bool {
        *self == Self::default()
    }
}

/// `supported` is what KVM_CAP_SET_GUEST_DEBUG2 says.
pub fn guest_debug(control: &DebugControl, supported: u32) -> kvm_guest_debug {
    let mut debug = kvm_guest_debug::default();
    if control.is_off() {
        return debug;
    }
    debug.control = KVM_GUESTDBG_ENABLE;
    if control.int3 {
        debug.control |= KVM_GUESTDBG_USE_SW_BP;
    }
    if control.step {
        // Without BLOCKIRQ a pending interrupt takes the step into its handler.
        debug.control |= KVM_GUESTDBG_SINGLESTEP | (supported & KVM_GUESTDBG_BLOCKIRQ);
    }
    if control.slots.iter().any(Option::is_some) {
        debug.control |= KVM_GUESTDBG_USE_HW_BP;
        debug.arch.debugreg[7] = dr7(&control.slots);
        for (n, slot) in control.slots.iter().enumerate() {
            debug.arch.debugreg[n] = slot.map_or(0, |slot| slot.addr.0);
        }
    }
    debug
}

/// DR7 for the slots: global enable, kind and length (SDM volume 3, 18.2.4).
fn dr7(slots: &HwSlots) -> u64 {
    const RESERVED_ONE: u64 = 1 << 10;
    const _: () = assert!(HW_SLOTS == 4);
    let field = |(n, slot): (usize, &Option<gdb::target::HwBreakpoint>)| {
        let Some(slot) = slot else { return 0 };
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
        0b10 << (n * 2) | (kind | len << 2) << (16 + n * 4)
    };
    slots
        .iter()
        .enumerate()
        .map(field)
        .fold(RESERVED_ONE, |dr7, field| dr7 | field)
}

#[cfg(test)]
#[path = "guest_debug_test.rs"]
mod tests;
