//! Where devices' shared memory regions are: behind all RAM, up to the end of the
//! guest's physical address space.

use devices::vhost_user::shared_memory::PAGE;
use devices::virtio::{GuestMemory, SharedRegion};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::layout;

/// Linux maps memory of devices in sections of this size, in bytes.
const ALIGNMENT: u64 = 128 << 20;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "device {device}: shared memory region {id} is to have {len:#x} bytes, which is no number of whole pages"
    )]
    NotPages { device: String, id: u8, len: u64 },
    #[error(
        "device {device}: shared memory region {id} is to have {len:#x} bytes; {left:#x} of the guest's physical addresses are left, which this host gives {bits} bits"
    )]
    NoRoom {
        device: String,
        id: u8,
        len: u64,
        left: u64,
        bits: u32,
    },
}

/// The free part of the address space.
pub struct ShmAddressSpace {
    next: u64,
    bits: u32,
}

impl ShmAddressSpace {
    /// Behind `memory`, for guests whose physical addresses have `bits` bits.
    pub fn new(memory: &GuestMemory, bits: u32) -> Self {
        let behind_ram = memory.last_addr().0 + 1;
        Self {
            next: behind_ram.max(layout::MMIO_HOLE_END),
            bits,
        }
    }

    /// Gives room to the regions of `device`, which wants them by number and size in bytes.
    pub fn place(
        &mut self,
        device: &str,
        wanted: impl IntoIterator<Item = (u8, u64)>,
    ) -> Result<Vec<SharedRegion>, Error> {
        let place = |(id, len)| self.place_one(device, id, len);
        wanted.into_iter().map(place).collect()
    }

    fn place_one(&mut self, device: &str, id: u8, len: u64) -> Result<SharedRegion, Error> {
        let device = device.to_owned();
        if !len.is_multiple_of(PAGE) {
            return Err(Error::NotPages { device, id, len });
        }
        let (base, bits) = (self.next.next_multiple_of(ALIGNMENT), self.bits);
        let left = (1u64 << bits).saturating_sub(base);
        if len > left {
            return Err(Error::NoRoom {
                device,
                id,
                len,
                left,
                bits,
            });
        }
        self.next = base + len;
        let base = GuestAddress(base);
        Ok(SharedRegion { id, base, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behind_ram(bits: u32) -> ShmAddressSpace {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        ShmAddressSpace::new(&memory, bits)
    }

    #[test]
    fn regions_lie_behind_each_other_and_behind_all_else() {
        let mut space = behind_ram(40);
        let first = space.place("fs0", [(0, 1 << 30), (5, 4096)]).unwrap();
        let second = space.place("fs1", [(0, 4096)]).unwrap();
        let bases: Vec<_> = first.iter().chain(&second).map(|r| r.base.0).collect();
        assert_eq!(bases, [4 << 30, 5 << 30, (5 << 30) + ALIGNMENT]);
        assert_eq!(first[1].id, 5);
        assert_eq!(first[1].len, 4096);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let mut space = behind_ram(36);
        let error = space.place("fs0", [(0, 1 << 36)]).unwrap_err();
        assert!(
            matches!(error, Error::NoRoom { bits: 36, left, .. } if left == 60 << 30),
            "{error}"
        );
        let error = space.place("fs0", [(0, u64::MAX)]).unwrap_err();
        assert!(matches!(error, Error::NotPages { .. }), "{error}");
        space.place("fs0", [(0, 60 << 30)]).unwrap();
    }
}
