//! Everything of a vCPU that a reset must put back.

use std::io;

use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd};

use super::xsave;
use crate::kvm::{Error, failed};

pub struct ResetState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    xsave: kvm_xsave,
    msrs: Msrs,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xcrs: kvm_xcrs,
}

impl ResetState {
    /// What the vCPU is now.
    pub fn of(kvm: &Kvm, fd: &VcpuFd) -> Result<Self, Error> {
        Ok(Self {
            regs: fd.get_regs().map_err(failed("KVM_GET_REGS"))?,
            sregs: fd.get_sregs().map_err(failed("KVM_GET_SREGS"))?,
            xsave: xsave::area(fd)?,
            msrs: all_msrs(kvm, fd)?,
            lapic: fd.get_lapic().map_err(failed("KVM_GET_LAPIC"))?,
            mp_state: fd.get_mp_state().map_err(failed("KVM_GET_MP_STATE"))?,
            events: fd
                .get_vcpu_events()
                .map_err(failed("KVM_GET_VCPU_EVENTS"))?,
            debug: fd.get_debug_regs().map_err(failed("KVM_GET_DEBUGREGS"))?,
            xcrs: fd.get_xcrs().map_err(failed("KVM_GET_XCRS"))?,
        })
    }

    /// Makes the vCPU that again.
    pub fn restore(&self, fd: &VcpuFd) -> Result<(), Error> {
        // The order matters: the local APIC's base is in `sregs`, its mode
        // decides what MSRs mean, and the run state comes last.
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))?;
        fd.set_sregs(&self.sregs).map_err(failed("KVM_SET_SREGS"))?;
        fd.set_regs(&self.regs).map_err(failed("KVM_SET_REGS"))?;
        fd.set_xcrs(&self.xcrs).map_err(failed("KVM_SET_XCRS"))?;
        xsave::set_area(fd, &self.xsave)?;
        fd.set_debug_regs(&self.debug)
            .map_err(failed("KVM_SET_DEBUGREGS"))?;
        set_msrs_leniently(fd, self.msrs.as_slice())?;
        fd.set_lapic(&self.lapic).map_err(failed("KVM_SET_LAPIC"))?;
        fd.set_vcpu_events(&self.events)
            .map_err(failed("KVM_SET_VCPU_EVENTS"))?;
        fd.set_mp_state(self.mp_state)
            .map_err(failed("KVM_SET_MP_STATE"))
    }
}

/// KVM's own list of MSRs, less those it cannot read. It stops at the first one that it
/// refuses and says how far it came.
fn all_msrs(kvm: &Kvm, fd: &VcpuFd) -> Result<Msrs, Error> {
    let list = kvm
        .get_msr_index_list()
        .map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
    let mut readable = Vec::new();
    let mut left = list.as_slice();
    while !left.is_empty() {
        let mut msrs = msrs_of(left.iter().map(|&index| (index, 0)))?;
        let count = fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        readable.extend_from_slice(&msrs.as_slice()[..count]);
        left = left.get(count + 1..).unwrap_or_default();
    }
    msrs_of(readable.iter().map(|msr| (msr.index, msr.data)))
}

/// KVM lists some MSRs that it reads but does not let anybody write: they never change,
/// so a refused write loses nothing.
fn set_msrs_leniently(fd: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
    let mut left = msrs;
    while !left.is_empty() {
        let msrs = msrs_of(left.iter().map(|msr| (msr.index, msr.data)))?;
        let count = fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
        left = left.get(count + 1..).unwrap_or_default();
    }
    Ok(())
}

/// A list for KVM_GET_MSRS and KVM_SET_MSRS from indices and values.
pub fn msrs_of(msrs: impl IntoIterator<Item = (u32, u64)>) -> Result<Msrs, Error> {
    let entry = |(index, data)| kvm_msr_entry {
        index,
        data,
        ..Default::default()
    };
    let entries: Vec<_> = msrs.into_iter().map(entry).collect();
    Msrs::from_entries(&entries)
        .map_err(|error| io::Error::other(format!("{error:?}")))
        .map_err(failed("building an MSR list"))
}
