//! Lists that KVM gives and takes, however long they are.
//!
//! Those of `kvm-bindings` end at 80 CPUID entries, of which today's processors fill 71,
//! and at 256 MSR indices. KVM itself says by E2BIG that a list did not fit.
#![allow(unsafe_code)]

use std::io;

use kvm_bindings::{__IncompleteArrayField, KVMIO, kvm_cpuid_entry2};
use kvm_ioctls::{Kvm, VcpuFd};
use vmm_sys_util::fam::{FamStruct, FamStructWrapper};
use vmm_sys_util::ioctl::{ioctl_with_mut_ptr, ioctl_with_ptr};
use vmm_sys_util::{generate_fam_struct_impl, ioctl_iow_nr, ioctl_iowr_nr};

/// `struct kvm_cpuid2`.
#[repr(C)]
#[derive(Debug, Default)]
struct CpuidList {
    nent: u32,
    padding: u32,
    entries: __IncompleteArrayField<kvm_cpuid_entry2>,
}

/// `struct kvm_msr_list`.
#[repr(C)]
#[derive(Debug, Default)]
struct MsrIndexList {
    nmsrs: u32,
    indices: __IncompleteArrayField<u32>,
}

/// Where a list that KVM calls too short for it is no list any more.
const MOST: usize = 1 << 16;

generate_fam_struct_impl!(CpuidList, kvm_cpuid_entry2, entries, u32, nent, MOST);
generate_fam_struct_impl!(MsrIndexList, u32, indices, u32, nmsrs, MOST);

ioctl_iowr_nr!(KVM_GET_SUPPORTED_CPUID, KVMIO, 0x05, CpuidList);
ioctl_iow_nr!(KVM_SET_CPUID2, KVMIO, 0x90, CpuidList);
ioctl_iowr_nr!(KVM_GET_MSR_INDEX_LIST, KVMIO, 0x02, MsrIndexList);

/// The CPUID entries that this host's KVM can give a guest.
pub fn supported_cpuid(kvm: &Kvm) -> io::Result<Vec<kvm_cpuid_entry2>> {
    ask::<CpuidList>(|list| {
        // SAFETY: KVM writes at most as many entries as the list says it has room for.
        unsafe { ioctl_with_mut_ptr(kvm, KVM_GET_SUPPORTED_CPUID(), list) }
    })
}

/// The MSRs that this host's KVM saves and restores.
pub fn msr_indices(kvm: &Kvm) -> io::Result<Vec<u32>> {
    ask::<MsrIndexList>(|list| {
        // SAFETY: KVM writes at most as many indices as the list says it has room for.
        unsafe { ioctl_with_mut_ptr(kvm, KVM_GET_MSR_INDEX_LIST(), list) }
    })
}

/// Gives a vCPU its CPUID.
pub fn set_cpuid(vcpu: &VcpuFd, entries: &[kvm_cpuid_entry2]) -> io::Result<()> {
    let list = FamStructWrapper::<CpuidList>::from_entries(entries).map_err(|_| too_long())?;
    // SAFETY: KVM reads as many entries as the list says it has.
    match unsafe { ioctl_with_ptr(vcpu, KVM_SET_CPUID2(), list.as_fam_struct_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks with a list that is twice as long as the one before, until it suffices.
fn ask<T: FamStruct + Default>(call: impl Fn(*mut T) -> i32) -> io::Result<Vec<T::Entry>> {
    const FIRST: usize = 128;
    let mut room = FIRST;
    loop {
        let mut list = FamStructWrapper::<T>::new(room).map_err(|_| too_long())?;
        if call(list.as_mut_fam_struct_ptr()) >= 0 {
            return Ok(list.as_slice().to_vec());
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::E2BIG) {
            return Err(error);
        }
        room *= 2;
    }
}

fn too_long() -> io::Error {
    io::Error::from_raw_os_error(libc::E2BIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with `count` MSRs, as KVM answers for it.
    fn host(count: u32) -> impl Fn(*mut MsrIndexList) -> i32 {
        move |list| {
            // SAFETY: the caller's list.
            let list = unsafe { &mut *list };
            let room = std::mem::replace(&mut list.nmsrs, count);
            if room < count {
                // SAFETY: errno is this thread's own.
                unsafe { *libc::__errno_location() = libc::E2BIG };
                return -1;
            }
            for (n, index) in list.as_mut_slice().iter_mut().enumerate() {
                *index = n as u32;
            }
            0
        }
    }

    #[test]
    fn a_long_list_is_read_to_its_end() {
        for count in [0, 1, 128, 129, 300, 5000] {
            let expected: Vec<u32> = (0..count).collect();
            assert_eq!(ask(host(count)).unwrap(), expected);
        }
    }

    #[test]
    fn a_list_without_an_end_is_an_error() {
        let error = ask::<MsrIndexList>(host(u32::MAX)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
    }
}
