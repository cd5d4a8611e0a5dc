//! The debug facilities of a vCPU, as the debugger asks for them and as KVM arms them.

use gdb::target::HwSlots;
use kvm_bindings::{
    KVM_GUESTDBG_BLOCKIRQ, KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP,
    KVM_GUESTDBG_USE_SW_BP, kvm_guest_debug,
};

use super::slots::DebugSlots;

/// The events that a vCPU stops for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DebugControl {
    pub slots: HwSlots,
    /// Intercept int3.
    pub int3: bool,
    pub step: Option<Step>,
    pub host: HostDebug,
}

/// A single step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Begin,
    /// Continue the one that a pause has interrupted.
    Finish,
}

/// The probes' findings about this host's KVM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostDebug {
    /// Where instruction breakpoints fire: ring 0 and ring 3.
    pub breaks: [bool; 2],
    /// RF keeps one from firing, as on a processor. Where it does not, KVM emulates, and
    /// looks at the guest's own debug registers itself.
    pub honours_rf: bool,
    pub delivery: Int3Delivery,
}

/// How the guest is given the #BP of an int3 of its own that was intercepted, so that
/// it finds the RIP behind it saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Int3Delivery {
    /// KVM_GUESTDBG_INJECT_BP, with RIP at the int3.
    #[default]
    Inject,
    /// KVM_SET_VCPU_EVENTS, with RIP behind it.
    Events,
    /// Neither does it right.
    Wrong,
}

/// The arguments of KVM_SET_GUEST_DEBUG.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facilities {
    pub slots: DebugSlots,
    pub int3: bool,
    /// The trap flag.
    pub trap: bool,
    /// Keep interrupts from coming before the next instruction.
    pub block_interrupts: bool,
}

impl Facilities {
    /// `supported` is what KVM_CAP_SET_GUEST_DEBUG2 says.
    pub fn guest_debug(&self, supported: u32) -> kvm_guest_debug {
        let mut debug = kvm_guest_debug::default();
        if self.int3 {
            debug.control |= KVM_GUESTDBG_USE_SW_BP;
        }
        if self.trap {
            debug.control |= KVM_GUESTDBG_SINGLESTEP;
        }
        if !self.slots.is_empty() {
            debug.control |= KVM_GUESTDBG_USE_HW_BP;
            debug.arch.debugreg[7] = self.slots.dr7();
            debug.arch.debugreg[..4].copy_from_slice(&self.slots.addresses());
        }
        if debug.control != 0 {
            debug.control |= KVM_GUESTDBG_ENABLE;
        }
        if self.block_interrupts {
            debug.control |= supported & KVM_GUESTDBG_BLOCKIRQ;
        }
        debug
    }
}

#[cfg(test)]
#[path = "control_test.rs"]
mod tests;
