//! The single step of a `hlt`, on a host whose KVM loses it.
//!
//! Where KVM emulates ring 0 (PVM) it notes that the guest halts, and then ends the
//! step without acting on the note. It does so after some later instruction that is
//! not stepped, when interrupts may be off: the guest then sleeps for ever. There the
//! step is done here, with the outcome that it has everywhere else: the vCPU is
//! behind the instruction and halted.

use devices::virtio::GuestMemory;
use gdb::target::Activity;
use kvm_bindings::{KVM_MP_STATE_HALTED, kvm_mp_state, kvm_vcpu_events};
use vm_memory::{Bytes, GuestAddress};

use super::Vcpu;
use crate::kvm::{Error, failed};

const HLT: u8 = 0xf4;

impl Vcpu {
    /// Steps over the instruction at RIP if it is a `hlt` that the vCPU would execute.
    pub fn step_over_hlt(&self, memory: &GuestMemory) -> Result<bool, Error> {
        let mut events = self
            .fd
            .get_vcpu_events()
            .map_err(failed("KVM_GET_VCPU_EVENTS"))?;
        let waits = self.activity()? != Activity::Running;
        if waits || delivers(&events) || !self.is_at_hlt(memory)? {
            return Ok(false);
        }
        let mut regs = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?;
        regs.rip = regs.rip.wrapping_add(1);
        self.fd.set_regs(&regs).map_err(failed("KVM_SET_REGS"))?;
        // The shadow of an `sti` covers one instruction; nothing wakes a vCPU in it.
        events.interrupt.shadow = 0;
        self.fd
            .set_vcpu_events(&events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        let halted = kvm_mp_state {
            mp_state: KVM_MP_STATE_HALTED,
        };
        self.fd
            .set_mp_state(halted)
            .map_err(failed("KVM_SET_MP_STATE"))?;
        Ok(true)
    }

    /// Ring 3 may not halt.
    fn is_at_hlt(&self, memory: &GuestMemory) -> Result<bool, Error> {
        let sregs = self.sregs()?;
        if sregs.cs.dpl != 0 {
            return Ok(false);
        }
        let rip = self.fd.get_regs().map_err(failed("KVM_GET_REGS"))?.rip;
        let place = self
            .fd
            .translate_gva(sregs.cs.base.wrapping_add(rip))
            .map_err(failed("KVM_TRANSLATE"))?;
        let instruction = memory.read_obj::<u8>(GuestAddress(place.physical_address));
        Ok(place.valid != 0 && instruction.is_ok_and(|byte| byte == HLT))
    }
}

/// Whether the next entry delivers what the last one left, before any instruction.
fn delivers(events: &kvm_vcpu_events) -> bool {
    events.exception.injected != 0 || events.interrupt.injected != 0 || events.nmi.injected != 0
}
