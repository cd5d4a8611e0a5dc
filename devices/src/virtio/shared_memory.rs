//! Shared memory regions (virtio 1.3, section 2.10): memory of the device's that the
//! guest accesses in place.

use vm_memory::GuestAddress;

/// One region, where the guest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedRegion {
    /// The number by which the device type's specification calls it.
    pub id: u8,
    pub base: GuestAddress,
    /// In bytes.
    pub len: u64,
}

/// The values of ShmLen and ShmBase for a region that is not there (section 4.2.2).
pub const ABSENT: u64 = u64::MAX;

/// The values of ShmLen and ShmBase while ShmSel is `selected`.
pub fn registers(regions: &[SharedRegion], selected: u32) -> (u64, u64) {
    let found = regions
        .iter()
        .find(|region| u32::from(region.id) == selected);
    found.map_or((ABSENT, ABSENT), |region| (region.len, region.base.0))
}
