//! The time-stamp counter of a vCPU, which does not count while the vCPU is stopped.
//!
//! A guest's TSC is the host's plus an offset. KVM hands the offset out since Linux 5.16
//! (KVM_VCPU_TSC_CTRL, Documentation/virt/kvm/devices/vcpu.rst): writing the TSC itself
//! would not do, for KVM takes a value that is less than a second off for an attempt to
//! synchronise vCPUs.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use kvm_bindings::{
    KVM_CAP_VCPU_ATTRIBUTES, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, Msrs, kvm_device_attr,
    kvm_msr_entry, kvm_msrs,
};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr, ioctl_with_ref};
use vmm_sys_util::{ioctl_iow_nr, ioctl_iowr_nr};

use crate::kvm::{Error, failed};

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iowr_nr!(KVM_GET_MSRS, KVMIO, 0x88, kvm_msrs);
ioctl_iow_nr!(KVM_SET_MSRS, KVMIO, 0x89, kvm_msrs);

/// IA32_TSC_DEADLINE: when the APIC timer is due, by the guest's TSC (SDM volume 3,
/// 11.5.4.1); 0 when it is off.
const MSR_TSC_DEADLINE: u32 = 0x6e0;

/// Whether this host's KVM has the offset. Whether the guest's TSC follows it is another
/// question (`host::holds_tsc`).
pub fn has_offset(kvm: &Kvm) -> bool {
    // The TSC is all that x86 vCPUs have attributes for.
    kvm.check_extension_raw(KVM_CAP_VCPU_ATTRIBUTES.into()) > 0
}

/// A vCPU's TSC, for any thread; the vCPU must be stopped.
pub struct Tsc {
    vcpu: OwnedFd,
}

impl Tsc {
    pub fn of(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open as long as `vcpu` is.
        let vcpu = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        let vcpu = vcpu.try_clone_to_owned()?;
        Ok(Self { vcpu })
    }

    /// Takes `cycles` back that have passed. The APIC timer is due as much later: KVM
    /// works out when that is at the time when the deadline is written.
    pub fn take_back(&self, cycles: u64) -> Result<(), Error> {
        let offset = self.offset().map_err(failed("reading the TSC's offset"))?;
        let offset = offset.wrapping_sub(cycles);
        self.set_offset(offset)
            .map_err(failed("setting the TSC's offset"))?;
        self.renew_deadline()
            .map_err(failed("renewing the TSC's deadline"))
    }

    fn offset(&self) -> io::Result<u64> {
        let mut offset = 0u64;
        let attr = attribute(&raw mut offset as u64);
        // SAFETY: KVM writes 8 bytes to `offset`.
        done(unsafe { ioctl_with_ref(&self.vcpu, KVM_GET_DEVICE_ATTR(), &attr) })?;
        Ok(offset)
    }

    fn set_offset(&self, offset: u64) -> io::Result<()> {
        let attr = attribute(&raw const offset as u64);
        // SAFETY: KVM reads 8 bytes from `offset`.
        done(unsafe { ioctl_with_ref(&self.vcpu, KVM_SET_DEVICE_ATTR(), &attr) })
    }

    fn renew_deadline(&self) -> io::Result<()> {
        let entry = kvm_msr_entry {
            index: MSR_TSC_DEADLINE,
            ..Default::default()
        };
        let mut msrs = Msrs::from_entries(&[entry]).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let list = msrs.as_mut_fam_struct_ptr();
        // SAFETY: KVM writes the one entry that the list says it has.
        done(unsafe { ioctl_with_mut_ptr(&self.vcpu, KVM_GET_MSRS(), list) })?;
        if msrs.as_slice()[0].data == 0 {
            return Ok(());
        }
        let list = msrs.as_fam_struct_ptr();
        // SAFETY: KVM reads the one entry that the list says it has.
        done(unsafe { ioctl_with_ptr(&self.vcpu, KVM_SET_MSRS(), list) })
    }
}

/// The offset, which is at `addr`.
fn attribute(addr: u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: KVM_VCPU_TSC_OFFSET.into(),
        addr,
    }
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
