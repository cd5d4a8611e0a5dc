//! The guest memory that a backend is given.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vhost::vhost_user::message::{
    MAX_ATTACHED_FD_ENTRIES, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
};
use vhost_user_wire::frontend::{AddMemoryRegion, SetMemTable};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::vhost_user::error::Problem;
use crate::virtio::GuestMemory;

/// A "user address" of the vhost-user document. There it is an address of the
/// frontend's process; a backend only uses it to find the memory region that
/// holds it. Ours are derived from guest-physical ones, so that a backend
/// learns nothing about the VMM's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserAddress(u64);

impl UserAddress {
    /// The offset from a guest-physical address. It makes the two kinds differ,
    /// so that mistaking one for the other does not work by accident; it keeps
    /// 0, which some backends take for "unset", free; and it stays below 2^47.
    const OFFSET: u64 = 1 << 45;

    fn of(address: GuestAddress) -> Option<Self> {
        (address.0 < Self::OFFSET).then_some(Self(address.0 + Self::OFFSET))
    }

    /// The address as it stands in messages.
    pub fn raw(self) -> u64 {
        self.0
    }
}

/// All of guest RAM as a backend sees it.
pub struct MemoryTable {
    /// In the order of those of `memory`, each of which has a file.
    regions: Vec<VhostUserMemoryRegion>,
    memory: Arc<GuestMemory>,
}

impl MemoryTable {
    /// Fails when a region cannot be shared with another process.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Self, Problem> {
        let count = memory.num_regions();
        if count > MAX_ATTACHED_FD_ENTRIES {
            return Err(Problem::TooManyRegions(count));
        }
        let mut regions = Vec::with_capacity(count);
        for region in memory.iter() {
            let start = region.start_addr();
            let not_shared = Problem::MemoryNotShared { start: start.0 };
            let (Some(file), Some(user)) = (region.file_offset(), UserAddress::of(start)) else {
                return Err(not_shared);
            };
            regions.push(VhostUserMemoryRegion::new(
                start.0,
                region.len(),
                user.raw(),
                file.start(),
            ));
        }
        Ok(Self { regions, memory })
    }

    /// The message that hands it over.
    pub fn message(&self) -> SetMemTable<'_> {
        SetMemTable {
            regions: self.regions.clone(),
            files: self.files().collect(),
        }
    }

    /// The same, region by region.
    pub fn regions(&self) -> impl Iterator<Item = AddMemoryRegion<'_>> {
        let add = |(region, file): (&VhostUserMemoryRegion, _)| AddMemoryRegion {
            payload: VhostUserSingleMemoryRegion::new(
                region.guest_phys_addr,
                region.memory_size,
                region.user_addr,
                region.mmap_offset,
            ),
            file,
        };
        self.regions.iter().zip(self.files()).map(add)
    }

    /// How many regions there are.
    pub fn count(&self) -> usize {
        self.regions.len()
    }

    fn files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let places = self.memory.iter().filter_map(|region| region.file_offset());
        places.map(|place| place.file().as_fd())
    }

    /// The memory itself.
    pub fn guest(&self) -> &GuestMemory {
        &self.memory
    }

    /// The user address of the guest-physical `address`, if a backend can reach it.
    pub fn user_address(&self, address: GuestAddress) -> Option<UserAddress> {
        self.memory.find_region(address)?;
        UserAddress::of(address)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use vm_memory::FileOffset;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory() -> Arc<GuestMemory> {
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(3 * MIB).unwrap();
        let file = Arc::new(file);
        let part = |at: u64, len: u64, offset: u64| {
            let offset = FileOffset::from_arc(file.clone(), offset);
            (GuestAddress(at), len as usize, Some(offset))
        };
        let parts = [part(0, MIB, 0), part(1 << 32, 2 * MIB, MIB)];
        Arc::new(GuestMemory::from_ranges_with_files(parts).unwrap())
    }

    #[test]
    fn a_table_has_each_region_with_its_file_and_offset() {
        let table = MemoryTable::new(memory()).unwrap();
        let message = table.message();
        assert_eq!(message.files.len(), 2);
        let [low, high] = &message.regions[..] else {
            panic!("two regions");
        };
        assert_eq!(
            ({ low.guest_phys_addr }, { low.memory_size }, {
                low.mmap_offset
            }),
            (0, MIB, 0)
        );
        assert_eq!(
            ({ high.guest_phys_addr }, { high.memory_size }, {
                high.mmap_offset
            }),
            (1 << 32, 2 * MIB, MIB)
        );
    }

    #[test]
    fn addresses_translate_as_the_table_says_and_are_no_host_addresses() {
        let memory = memory();
        let table = MemoryTable::new(memory.clone()).unwrap();
        for (index, address) in [(0, 0), (0, 0x1000), (1, 1 << 32), (1, (1 << 32) + MIB)] {
            let region = table.message().regions[index];
            let inside = address - region.guest_phys_addr;
            let user = table.user_address(GuestAddress(address)).unwrap();
            assert_eq!(user.raw(), region.user_addr + inside);
            let host = memory.get_host_address(GuestAddress(address)).unwrap();
            assert_ne!(user.raw(), host as u64);
        }
        assert_eq!(table.user_address(GuestAddress(MIB)), None);
    }

    #[test]
    fn memory_of_this_process_alone_is_refused() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let refused = MemoryTable::new(Arc::new(memory));
        assert!(matches!(
            refused.err(),
            Some(Problem::MemoryNotShared { start: 0 })
        ));
    }
}
