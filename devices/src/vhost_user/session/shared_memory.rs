//! Shared memory regions of a backend (vhost-user document, "VIRTIO Shared Memory
//! Region"): windows in the guest's address space into which the backend has files mapped.
//!
//! Where nothing is mapped there is no memory: accesses exit and hit nothing. The
//! windows are not in the memory table, so that no backend reaches the mappings of
//! another.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libc::{EFD_CLOEXEC, EFD_NONBLOCK};
use vhost::vhost_user::message::{VhostUserMMap, VhostUserMMapFlags};
use vm_memory::{Address, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use crate::file_mapping::FileMapping;
use crate::hypervisor::Hypervisor;
use crate::virtio::SharedRegion;

/// In bytes.
pub const PAGE: u64 = 4096;

/// A backend asked for a mapping that it cannot have.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("the device has no shared memory region {0}")]
    NoRegion(u8),
    #[error(
        "{len:#x} bytes at {offset:#x} of the file and {shm_offset:#x} of the region are not whole pages of {PAGE} bytes"
    )]
    NotPages {
        offset: u64,
        shm_offset: u64,
        len: u64,
    },
    #[error("{len:#x} bytes at {shm_offset:#x} leave the region, which has {size:#x}")]
    OutsideRegion {
        shm_offset: u64,
        len: u64,
        size: u64,
    },
    #[error("{len:#x} bytes at {offset:#x} leave the file, which has {size:#x}")]
    OutsideFile { offset: u64, len: u64, size: u64 },
    #[error("the flags {0:#x} are not known")]
    Flags(u64),
    #[error("something is mapped between {shm_offset:#x} and {end:#x} already; unmap it first")]
    Overlap { shm_offset: u64, end: u64 },
    #[error("nothing is mapped that has {len:#x} bytes at {shm_offset:#x}")]
    NotMapped { shm_offset: u64, len: u64 },
    #[error("no file came with it")]
    NoFile,
    #[error("the host cannot map it")]
    Host(#[from] io::Error),
}

/// The regions of one device and the mappings in them.
pub struct SharedMemory {
    hypervisor: Arc<dyn Hypervisor>,
    regions: Vec<SharedRegion>,
    mapped: Mutex<Vec<Mapped>>,
    cut: Arc<EventFd>,
}

#[derive(Clone, Copy, Debug)]
struct Mapped {
    at: GuestAddress,
    len: u64,
    /// A backend that is gone made this mapping. Its successor does not know of it.
    is_inherited: bool,
}

impl Mapped {
    fn overlaps(&self, at: GuestAddress, len: u64) -> bool {
        self.at.0 < at.0 + len && at.0 < self.at.0 + self.len
    }
}

impl SharedMemory {
    /// Fails when the host is out of descriptors.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, regions: Vec<SharedRegion>) -> io::Result<Self> {
        Ok(Self {
            hypervisor,
            regions,
            mapped: Mutex::default(),
            cut: Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?),
        })
    }

    /// Readable when the guest has met a mapping whose file the backend has cut short. The
    /// guest reads zeros there.
    pub fn cut(&self) -> &EventFd {
        &self.cut
    }

    pub fn regions(&self) -> &[SharedRegion] {
        &self.regions
    }

    fn mapped(&self) -> MutexGuard<'_, Vec<Mapped>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The guest address that a request is about.
    fn place(&self, asked: &VhostUserMMap) -> Result<GuestAddress, MapError> {
        let (shm_offset, len) = (asked.shm_offset, asked.len);
        let region = self.regions.iter().find(|region| region.id == asked.shmid);
        let region = region.ok_or(MapError::NoRegion(asked.shmid))?;
        let end = shm_offset.checked_add(len);
        if len == 0 || end.is_none_or(|end| end > region.len) {
            return Err(MapError::OutsideRegion {
                shm_offset,
                len,
                size: region.len,
            });
        }
        Ok(region.base.unchecked_add(shm_offset))
    }

    /// SHMEM_MAP. A mapping that the backend itself has made there stays; one that a
    /// predecessor left makes room.
    pub fn map(&self, asked: &VhostUserMMap, file: Option<&File>) -> Result<(), MapError> {
        let (offset, shm_offset, len) = (asked.fd_offset, asked.shm_offset, asked.len);
        let at = self.place(asked)?;
        let is_whole = |value: u64| value.is_multiple_of(PAGE);
        if !(is_whole(offset) && is_whole(shm_offset) && is_whole(len)) {
            return Err(MapError::NotPages {
                offset,
                shm_offset,
                len,
            });
        }
        let flags = asked.flags;
        let flags = VhostUserMMapFlags::from_bits(flags).ok_or(MapError::Flags(flags))?;
        let file = file.ok_or(MapError::NoFile)?;
        check_size(file, offset, len)?;
        let mut mapped = self.mapped();
        let mut there = mapped.iter().filter(|mapped| mapped.overlaps(at, len));
        if there.any(|mapped| !mapped.is_inherited) {
            let end = shm_offset + len;
            return Err(MapError::Overlap { shm_offset, end });
        }
        let writable = flags.contains(VhostUserMMapFlags::WRITABLE);
        let mapping = FileMapping::new(file, offset, len, writable, self.cut.clone())?;
        self.unmap_all(&mut mapped, |mapped| mapped.overlaps(at, len))?;
        self.hypervisor.map(at, mapping)?;
        mapped.push(Mapped {
            at,
            len,
            is_inherited: false,
        });
        Ok(())
    }

    /// SHMEM_UNMAP, of a whole mapping.
    pub fn unmap(&self, asked: &VhostUserMMap) -> Result<(), MapError> {
        let (shm_offset, len) = (asked.shm_offset, asked.len);
        let at = self.place(asked)?;
        let is_it = |mapped: &Mapped| mapped.at == at && mapped.len == len;
        let mut mapped = self.mapped();
        if !mapped.iter().any(is_it) {
            return Err(MapError::NotMapped { shm_offset, len });
        }
        Ok(self.unmap_all(&mut mapped, is_it)?)
    }

    /// The driver has reset the device: nothing is mapped any more.
    pub fn clear(&self) -> io::Result<()> {
        self.unmap_all(&mut self.mapped(), |_| true)
    }

    /// Checks whether files have been cut short. KVM may tell nobody when the guest accesses
    /// a missing page: while interrupts are on, it tries again and again (asynchronous page
    /// faults).
    pub fn look_for_cuts(&self) {
        for mapped in self.mapped().iter() {
            self.hypervisor.replace_if_cut(mapped.at);
        }
    }

    /// The backend is another one now. The guest keeps the mappings of the last one.
    pub fn inherit(&self) {
        for mapped in self.mapped().iter_mut() {
            mapped.is_inherited = true;
        }
    }

    fn unmap_all(
        &self,
        mapped: &mut Vec<Mapped>,
        which: impl Fn(&Mapped) -> bool,
    ) -> io::Result<()> {
        let (gone, kept) = mapped.iter().partition(|mapped| which(mapped));
        *mapped = kept;
        let gone: Vec<Mapped> = gone;
        gone.iter()
            .try_for_each(|mapped| self.hypervisor.unmap(mapped.at))
    }
}

/// A guest can access nothing behind the end of a file. If the file is not a
/// regular one (a device's buffer), the driver of the device knows its size.
fn check_size(file: &File, offset: u64, len: u64) -> Result<(), MapError> {
    let metadata = file.metadata()?;
    let size = metadata.size();
    let end = offset.checked_add(len);
    if metadata.is_file() && end.is_none_or(|end| end > size) {
        return Err(MapError::OutsideFile { offset, len, size });
    }
    Ok(())
}

#[cfg(test)]
#[path = "shared_memory_test.rs"]
mod tests;
