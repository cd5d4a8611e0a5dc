//! Model-specific registers of a vCPU.

use std::io;

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::{Kvm, VcpuFd};

use super::kvm_lists;
use crate::kvm::{Error, failed};

/// Reads one.
pub fn read(fd: &VcpuFd, index: u32) -> Result<u64, Error> {
    let mut msrs = list_of([(index, 0)])?;
    match fd.get_msrs(&mut msrs) {
        Ok(1) => Ok(msrs.as_slice()[0].data),
        _ => Err(Error {
            call: "KVM_GET_MSRS",
            source: io::Error::other(format!("MSR {index:#x} is not readable")),
        }),
    }
}

pub fn write(fd: &VcpuFd, index: u32, data: u64) -> Result<(), Error> {
    match fd.set_msrs(&list_of([(index, data)])?) {
        Ok(1) => Ok(()),
        _ => Err(Error {
            call: "KVM_SET_MSRS",
            source: io::Error::other(format!("MSR {index:#x} does not take {data:#x}")),
        }),
    }
}

/// As many MSRs as KVM takes in one call (MAX_IO_MSRS).
const AT_ONCE: usize = 256;

/// KVM's own list of MSRs, less those it cannot read. It stops at the first one that it
/// refuses and says how far it came.
pub fn read_all(kvm: &Kvm, fd: &VcpuFd) -> Result<Vec<kvm_msr_entry>, Error> {
    let indices = kvm_lists::msr_indices(kvm).map_err(failed("KVM_GET_MSR_INDEX_LIST"))?;
    let mut readable = Vec::with_capacity(indices.len());
    let mut left = indices.as_slice();
    while !left.is_empty() {
        let asked = &left[..left.len().min(AT_ONCE)];
        let mut msrs = list_of(asked.iter().map(|&index| (index, 0)))?;
        let count = fd.get_msrs(&mut msrs).map_err(failed("KVM_GET_MSRS"))?;
        readable.extend_from_slice(&msrs.as_slice()[..count]);
        let refused = usize::from(count < asked.len());
        left = &left[count + refused..];
    }
    Ok(readable)
}

/// KVM lists some MSRs that it reads but does not let anybody write: they never change,
/// so a refused write loses nothing.
pub fn write_leniently(fd: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
    let mut left = msrs;
    while !left.is_empty() {
        let given = &left[..left.len().min(AT_ONCE)];
        let msrs = list_of(given.iter().map(|msr| (msr.index, msr.data)))?;
        let count = fd.set_msrs(&msrs).map_err(failed("KVM_SET_MSRS"))?;
        let refused = usize::from(count < given.len());
        left = &left[count + refused..];
    }
    Ok(())
}

/// A list for KVM_GET_MSRS and KVM_SET_MSRS from indices and values.
fn list_of(msrs: impl IntoIterator<Item = (u32, u64)>) -> Result<Msrs, Error> {
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
