//! Everything of a vCPU that a reset must put back.

use kvm_bindings::{
    kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use super::{msrs, xsave};
use crate::kvm::{Error, failed};

pub struct ResetState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    msrs: Vec<kvm_msr_entry>,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xcrs: kvm_xcrs,
}

impl ResetState {
    /// The vCPU's present state.
    pub fn of(kvm: &Kvm, fd: &VcpuFd) -> Result<Self, Error> {
        Ok(Self {
            regs: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            xsave: xsave::area(fd)?,
            msrs: msrs::read_all(kvm, fd)?,
            lapic: fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?,
            mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
            events: fd
                .get_vcpu_events()
                .map_err(failed("KVM_GET_VCPU_EVENTS"))?,
            debug: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
            xcrs: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
        })
    }

    /// Puts the vCPU into that state again.
    pub fn restore(&self, fd: &VcpuFd) -> Result<(), Error> {
        // The order matters: the local APIC's base is in `sregs`, its mode
        // decides the meaning of MSRs, and the run state comes last.
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))?;
        fd.set_sregs(&self.sregs).map_err(failed("KVM_SET_SREGS"))?;
        fd.set_regs(&self.regs).map_err(failed("KVM_SET_REGS"))?;
        fd.set_xcrs(&self.xcrs).map_err(failed("KVM_SET_XCRS"))?;
        xsave::set_area(fd, &self.xsave)?;
        fd.set_debug_regs(&self.debug)
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        msrs::write_leniently(fd, &self.msrs)?;
        fd.set_lapic(&self.lapic).map_err(failed("KVM_SET_LAPIC"))?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))
    }
}
