//! The memory table: which pieces of guest memory the frontend shares, and where.
//!
//! Three kinds of address meet here and are three types: a guest-physical address is a
//! [`GuestAddress`]; an address in the frontend's own address space, in which it names the parts
//! of a ring, is a [`UserAddress`]; host addresses stay inside `vm-memory`.
//!
//! Regions are checked against the length of their files, because touching memory beyond the end
//! is a SIGBUS. A frontend that truncates a file afterwards can still end this process: only its
//! own guest is behind it. Frontends that seal their memfd cannot do so by accident.
//!
//! vhost-user document, "Memory region description" and SET_MEM_TABLE, ADD_MEM_REG, REM_MEM_REG.

use std::fs::File;
use std::io;
use std::sync::Arc;

use thiserror::Error;
use vhost::vhost_user::message::VhostUserMemoryRegion;
use vm_memory::mmap::NewBitmap;
use vm_memory::{
    GuestAddress, GuestMemoryAtomic, GuestMemoryMmap, GuestRegionCollection, GuestRegionMmap,
};

/// Most regions a table may have. SET_MEM_TABLE carries at most 8 by the document and 32 in
/// practice; ADD_MEM_REG is bounded by what is answered to GET_MAX_MEM_SLOTS, which is this.
pub const MAX_SLOTS: usize = 509;

/// Guest memory as every ring and the backend see it: replaced as a whole, at once for all.
pub type SharedMemory<B> = GuestMemoryAtomic<GuestMemoryMmap<B>>;

/// An address in the frontend's address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct UserAddress(pub u64);

/// A memory table, a region or an address that cannot be used. The frontend is at fault.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// A region without bytes.
    #[error("memory region at guest address {guest:#x} has size 0")]
    Empty {
        /// Guest-physical start.
        guest: u64,
    },
    /// A range that passes the end of a 64-bit address space or of this host's `usize`.
    #[error(
        "memory region at guest address {guest:#x}, size {size:#x}: an address range wraps around"
    )]
    Wraps {
        /// Guest-physical start.
        guest: u64,
        /// Size in bytes.
        size: u64,
    },
    /// Two regions share guest-physical or user addresses.
    #[error("memory regions at guest addresses {first:#x} and {second:#x} overlap ({space})")]
    Overlap {
        /// Guest-physical start of the lower one.
        first: u64,
        /// Guest-physical start of the other.
        second: u64,
        /// In which address space.
        space: &'static str,
    },
    /// More regions than can be kept.
    #[error("memory table of {0} regions; at most {MAX_SLOTS} are supported")]
    TooMany(usize),
    /// The file ends before the region does, so that touching its tail would kill this process.
    #[error(
        "memory region at guest address {guest:#x} ends at offset {end:#x} of a file of {len:#x} bytes"
    )]
    PastEnd {
        /// Guest-physical start.
        guest: u64,
        /// Offset of the region's end in the file.
        end: u64,
        /// The file's length.
        len: u64,
    },
    /// The file cannot be inspected.
    #[error("memory region at guest address {guest:#x}: its file cannot be inspected")]
    File {
        /// Guest-physical start.
        guest: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `mmap` failed.
    #[error("memory region at guest address {guest:#x}, size {size:#x}, cannot be mapped")]
    Map {
        /// Guest-physical start.
        guest: u64,
        /// Size in bytes.
        size: u64,
        /// Why.
        #[source]
        source: vhost::vhost_user::Error,
    },
    /// The regions do not form a guest memory.
    #[error("the memory table is not usable")]
    Table(#[source] vm_memory::GuestRegionCollectionError),
    /// REM_MEM_REG names a region that is not there.
    #[error("no memory region at guest address {guest:#x} with size {size:#x} to remove")]
    NoSuchRegion {
        /// Guest-physical start.
        guest: u64,
        /// Size in bytes.
        size: u64,
    },
    /// A user address range that no single region covers.
    #[error("user address {address:#x} (+{len:#x}) lies in no memory region")]
    Unmapped {
        /// Start in the frontend's address space.
        address: u64,
        /// Length in bytes.
        len: u64,
    },
}

/// One region: its description and its mapping.
#[derive(Debug)]
struct Region<B> {
    guest: GuestAddress,
    user: UserAddress,
    size: u64,
    mapping: Arc<GuestRegionMmap<B>>,
}

impl<B> Clone for Region<B> {
    fn clone(&self) -> Self {
        Region {
            guest: self.guest,
            user: self.user,
            size: self.size,
            mapping: Arc::clone(&self.mapping),
        }
    }
}

/// The regions the frontend has shared, sorted by guest address and free of overlap.
#[derive(Debug)]
pub struct MemoryTable<B> {
    regions: Vec<Region<B>>,
}

impl<B> Default for MemoryTable<B> {
    fn default() -> Self {
        MemoryTable {
            regions: Vec::new(),
        }
    }
}

impl<B: NewBitmap + 'static> MemoryTable<B> {
    /// Maps a whole table (SET_MEM_TABLE). `files` belongs to `regions` element by element.
    pub fn map(regions: &[VhostUserMemoryRegion], files: Vec<File>) -> Result<Self, MemoryError> {
        let mut table = MemoryTable::default();
        for (region, file) in regions.iter().zip(files) {
            table = table.with_region(region, file)?;
        }
        Ok(table)
    }

    /// This table and one region more (ADD_MEM_REG).
    pub fn with_region(
        &self,
        region: &VhostUserMemoryRegion,
        file: File,
    ) -> Result<Self, MemoryError> {
        if self.regions.len() >= MAX_SLOTS {
            return Err(MemoryError::TooMany(self.regions.len() + 1));
        }
        check_ranges(region)?;
        self.check_overlap(region)?;
        check_length(region, &file)?;
        let (guest, size) = (region.guest_phys_addr, region.memory_size);
        let mapping = region
            .mmap_region(file)
            .map_err(|source| MemoryError::Map {
                guest,
                size,
                source,
            })?;
        let mapping = GuestRegionMmap::new(mapping, GuestAddress(guest))
            .ok_or(MemoryError::Wraps { guest, size })?;
        let mut regions = self.regions.clone();
        let at = regions.partition_point(|r| r.guest.0 < guest);
        regions.insert(
            at,
            Region {
                guest: GuestAddress(guest),
                user: UserAddress(region.user_addr),
                size,
                mapping: Arc::new(mapping),
            },
        );
        Ok(MemoryTable { regions })
    }

    /// This table without one region (REM_MEM_REG). A region is identified by its guest address,
    /// user address and size.
    pub fn without_region(&self, region: &VhostUserMemoryRegion) -> Result<Self, MemoryError> {
        let (guest, user, size) = (region.guest_phys_addr, region.user_addr, region.memory_size);
        let mut regions = self.regions.clone();
        let at = regions
            .iter()
            .position(|r| r.guest.0 == guest && r.user.0 == user && r.size == size)
            .ok_or(MemoryError::NoSuchRegion { guest, size })?;
        regions.remove(at);
        Ok(MemoryTable { regions })
    }

    /// The table as guest memory.
    pub fn guest_memory(&self) -> Result<GuestMemoryMmap<B>, MemoryError> {
        if self.regions.is_empty() {
            return Ok(GuestMemoryMmap::new());
        }
        let regions = self
            .regions
            .iter()
            .map(|r| Arc::clone(&r.mapping))
            .collect();
        GuestRegionCollection::from_arc_regions(regions).map_err(MemoryError::Table)
    }

    /// Whether the frontend has shared anything yet.
    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The guest-physical address of `len` bytes at a user address. They must lie within one
    /// region: only then are they contiguous in guest-physical addresses too.
    pub fn translate(&self, address: UserAddress, len: u64) -> Result<GuestAddress, MemoryError> {
        self.regions
            .iter()
            .find_map(|r| {
                let offset = address.0.checked_sub(r.user.0)?;
                let room = r.size.checked_sub(offset)?;
                (len <= room).then_some(GuestAddress(r.guest.0 + offset))
            })
            .ok_or(MemoryError::Unmapped {
                address: address.0,
                len,
            })
    }

    fn check_overlap(&self, new: &VhostUserMemoryRegion) -> Result<(), MemoryError> {
        let (guest, user, size) = (new.guest_phys_addr, new.user_addr, new.memory_size);
        for old in &self.regions {
            let space = if ranges_overlap(old.guest.0, old.size, guest, size) {
                "guest-physical"
            } else if ranges_overlap(old.user.0, old.size, user, size) {
                "user"
            } else {
                continue;
            };
            return Err(MemoryError::Overlap {
                first: old.guest.0.min(guest),
                second: old.guest.0.max(guest),
                space,
            });
        }
        Ok(())
    }
}

/// Whether `[a, a + a_len)` and `[b, b + b_len)` meet. Neither may wrap.
fn ranges_overlap(a: u64, a_len: u64, b: u64, b_len: u64) -> bool {
    a < b + b_len && b < a + a_len
}

fn check_ranges(region: &VhostUserMemoryRegion) -> Result<(), MemoryError> {
    let (guest, size) = (region.guest_phys_addr, region.memory_size);
    if size == 0 {
        return Err(MemoryError::Empty { guest });
    }
    let starts = [guest, region.user_addr, region.mmap_offset];
    let fits = starts.iter().all(|s| s.checked_add(size).is_some());
    if fits && usize::try_from(size).is_ok() {
        Ok(())
    } else {
        Err(MemoryError::Wraps { guest, size })
    }
}

/// Refuses a region beyond the end of its file: the access would be a SIGBUS. Only regular files
/// (memfd, hugetlbfs, tmpfs) have a length to check.
fn check_length(region: &VhostUserMemoryRegion, file: &File) -> Result<(), MemoryError> {
    let guest = region.guest_phys_addr;
    let metadata = file
        .metadata()
        .map_err(|source| MemoryError::File { guest, source })?;
    let end = region.mmap_offset + region.memory_size;
    if metadata.is_file() && end > metadata.len() {
        return Err(MemoryError::PastEnd {
            guest,
            end,
            len: metadata.len(),
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
