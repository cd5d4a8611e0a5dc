//! The single step of a `hlt`: the vCPU is behind it, and halted until the next
//! interrupt wakes it.
//!
//! It is done without KVM. Where KVM emulates ring 0 (PVM), it notes that the guest
//! halts, and then ends the step without acting on the note. It does so after some later
//! instruction that is not stepped, when interrupts may be off: the guest would never
//! wake up.

use kvm_bindings::{KVM_MP_STATE_HALTED, KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_vcpu_events};

use super::place::Place;
use crate::kvm::{Error, failed};

/// Steps over the `hlt` of `len` bytes at RIP, unless the vCPU has to do something else
/// first.
pub fn step_over(place: Place<'_>, len: u64) -> Result<bool, Error> {
    let fd = place.fd;
    let mut events = fd
        .get_vcpu_events()
        .map_err(failed("KVM_GET_VCPU_EVENTS"))?;
    let state = fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?;
    if state.mp_state != KVM_MP_STATE_RUNNABLE || delivers(&events) {
        return Ok(false);
    }
    place.skip(len)?;
    // The shadow of an `sti` covers one instruction; nothing wakes a vCPU in it.
    events.interrupt.shadow = 0;
    fd.set_vcpu_events(&events)
        .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
    let halted = kvm_mp_state {
        mp_state: KVM_MP_STATE_HALTED,
    };
    fd.set_mp_state(halted)
        .map_err(failed("KVM_SET_MP_STATE"))?;
    Ok(true)
}

/// Whether the next entry delivers an event that the last one left, before any instruction.
fn delivers(events: &kvm_vcpu_events) -> bool {
    events.exception.injected != 0 || events.interrupt.injected != 0 || events.nmi.injected != 0
}
