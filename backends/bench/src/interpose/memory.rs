//! Guest memory as the backend is told of it, mapped once more.

use std::fs::File;

use vhost::vhost_user::message::{VhostUserMemoryRegion, VhostUserSingleMemoryRegion};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory, VolatileSlice};

/// A region of the memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub guest: u64,
    pub size: u64,
    pub user: u64,
    pub offset: u64,
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

/// What the mappings are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    #[default]
    Read,
    ReadWrite,
}

struct Region {
    place: Place,
    mapping: MmapRegion,
}

/// All regions. One that cannot be mapped is left out: what is in it cannot be shown.
#[derive(Default)]
pub struct Memory {
    access: Access,
    regions: Vec<Region>,
}

impl Memory {
    pub fn new(access: Access) -> Self {
        Self {
            access,
            regions: Vec::new(),
        }
    }

    pub fn clear(&mut self) {
        self.regions.clear();
    }

    pub fn add(&mut self, place: Place, file: File) {
        let size = usize::try_from(place.size).unwrap_or(usize::MAX);
        let file = FileOffset::new(file, place.offset);
        let prot = match self.access {
            Access::Read => libc::PROT_READ,
            Access::ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
        };
        let flags = libc::MAP_SHARED | libc::MAP_NORESERVE;
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
        let found = self.slice(address, N, |place| place.guest)?;
        let mut bytes = [0; N];
        found.copy_to(&mut bytes);
        Some(bytes)
    }

    /// A part of a ring, at an address that the frontend uses for rings.
    pub fn user_slice(&self, address: u64, len: usize) -> Option<VolatileSlice<'_, ()>> {
        self.slice(address, len, |place| place.user)
    }

    /// Copies bytes at an address of the driver's, from as many regions as they are in. Says
    /// whether all of them are memory.
    pub fn copy_guest(&self, mut address: u64, mut bytes: &mut [u8]) -> bool {
        while !bytes.is_empty() {
            let found = self.regions.iter().find_map(|region| {
                let offset = usize::try_from(address.checked_sub(region.place.guest)?).ok()?;
                let left = region.mapping.size().checked_sub(offset)?;
                let len = left.min(bytes.len());
                region.mapping.get_slice(offset, len).ok()
            });
            let Some(found) = found.filter(|found| !found.is_empty()) else {
                return false;
            };
            let (head, rest) = bytes.split_at_mut(found.len());
            found.copy_to(head);
            address = address.wrapping_add(head.len() as u64);
            bytes = rest;
        }
        true
    }

    fn slice(
        &self,
        address: u64,
        len: usize,
        base: impl Fn(&Place) -> u64,
    ) -> Option<VolatileSlice<'_, ()>> {
        self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(base(&region.place))?;
            let offset = usize::try_from(offset).ok()?;
            region.mapping.get_slice(offset, len).ok()
        })
    }
}
