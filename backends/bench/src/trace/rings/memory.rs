//! Guest memory as the backend is told of it, mapped once more to be read.

use std::fs::File;

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vm_memory::bitmap::BitmapSlice;
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// A region of the memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    guest: u64,
    size: u64,
    user: u64,
    offset: u64,
}

impl From<&VhostUserMemoryRegion> for Place {
    fn from(region: &VhostUserMemoryRegion) -> Self {
        Self {
            guest: region.guest_phys_addr,
            size: region.memory_size,
            user: region.user_addr,
            offset: region.mmap_offset,
        }
    }
}

impl From<&VhostUserSingleMemoryRegion> for Place {
    fn from(region: &VhostUserSingleMemoryRegion) -> Self {
        Self::from(&**region)
    }
}

struct Region {
    place: Place,
    mapping: MmapRegion,
}

/// All regions. One that cannot be mapped is left out: what is in it cannot be shown.
#[derive(Default)]
pub struct Memory {
    regions: Vec<Region>,
}

impl Memory {
    pub fn clear(&mut self) {
        self.regions.clear();
    }

    pub fn add(&mut self, place: Place, file: File) {
        let size = usize::try_from(place.size).unwrap_or(usize::MAX);
        let file = FileOffset::new(file, place.offset);
        let (prot, flags) = (libc::PROT_READ, libc::MAP_SHARED | libc::MAP_NORESERVE);
        if let Ok(mapping) = MmapRegion::build(Some(file), size, prot, flags) {
            self.regions.push(Region { place, mapping });
        }
    }

    /// Files say nothing of where a region is, so that its addresses name it.
    pub fn remove(&mut self, place: Place) {
        self.regions
            .retain(|region| (region.place.guest, region.place.user) != (place.guest, place.user));
    }

    /// Bytes at an address of the driver's.
    pub fn guest<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, |place| place.guest)
    }

    /// Bytes at an address that the frontend uses for rings.
    pub fn user<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        self.read(address, |place| place.user)
    }

    fn read<const N: usize>(&self, address: u64, base: impl Fn(&Place) -> u64) -> Option<[u8; N]> {
        let found = self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(base(&region.place))?;
            let offset = usize::try_from(offset).ok()?;
            region.mapping.get_slice(offset, N).ok()
        })?;
        Some(copy(&found))
    }
}

fn copy<const N: usize, B: BitmapSlice>(slice: &VolatileSlice<'_, B>) -> [u8; N] {
    let mut bytes = [0; N];
    slice.copy_to(&mut bytes);
    bytes
}
