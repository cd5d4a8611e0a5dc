//! The initial RAM disk.

use std::path::Path;

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use super::kept::{self, Kept};
use super::kernel::Kernel;
use super::memory_map;
use super::ram_reader::RamReader;

/// Where a file lies in guest RAM.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    pub addr: u64,
    pub size: u64,
}

/// Finds it at `path`, for a machine with so much RAM.
pub fn read(path: &Path, ram: u64) -> Result<Kept, Error> {
    let path = path.to_owned();
    match Kept::whole(&path, ram) {
        Ok(initrd) if initrd.len() == 0 => Err(Error::InitrdEmpty(path)),
        Ok(initrd) => Ok(initrd),
        Err(kept::Error::Open(source) | kept::Error::Read(source)) => {
            Err(Error::Initrd { path, source })
        }
        Err(kept::Error::TooLarge(size)) => Err(Error::InitrdTooLarge {
            path,
            size,
            room: ram,
        }),
        Err(kept::Error::Endless(limit)) => Err(Error::InitrdEndless { path, limit }),
    }
}

/// Places the initrd as high as the kernel can reach, page-aligned.
pub fn load(memory: &GuestMemory, initrd: &Kept, kernel: &Kernel) -> Result<Placed, Error> {
    let (path, size) = (initrd.path(), initrd.len());
    let mut file = initrd.open().map_err(|source| Error::Initrd {
        path: path.to_owned(),
        source,
    })?;
    let top = memory_map::low_ram_end(memory).min(kernel.initrd_max.saturating_add(1));
    let room = top.saturating_sub(kernel.end);
    let addr = top
        .checked_sub(size)
        .map(|addr| addr & !0xfff)
        .filter(|addr| *addr >= kernel.end);
    let Some(addr) = addr else {
        return Err(Error::InitrdTooLarge {
            path: path.to_owned(),
            size,
            room,
        });
    };
    let mut reader = RamReader::new(&mut file, memory);
    memory.read_exact_volatile_from(GuestAddress(addr), &mut reader, size as usize)?;
    Ok(Placed { addr, size })
}
