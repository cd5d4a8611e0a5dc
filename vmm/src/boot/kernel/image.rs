//! A kernel file that is being loaded, with the checks that all formats need.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use devices::virtio::GuestMemory;
use linux_loader::loader::bootparam::setup_header;

use super::clear::clear;
use super::error::Error;
use crate::boot::entry::Entry;
use crate::boot::kept::{Kept, read_at};
use crate::boot::memory_map;
use crate::layout;

/// A kernel in guest RAM.
pub struct Kernel {
    pub entry: Entry,
    /// First address behind everything that the kernel needs before it reads
    /// its memory map.
    pub end: u64,
    /// Highest address that the initrd may use.
    pub initrd_max: u64,
    /// The bzImage's own header, to be handed back to it.
    pub setup_header: Option<setup_header>,
}

/// A kernel file and the RAM that it is loaded into.
pub struct Image<'a> {
    file: File,
    path: &'a Path,
    len: u64,
    ram_end: u64,
}

impl<'a> Image<'a> {
    pub fn open(kernel: &'a Kept, memory: &GuestMemory) -> Result<Self, Error> {
        let path = kernel.path();
        let file = kernel.open().map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            file,
            path,
            len: kernel.len(),
            ram_end: memory_map::low_ram_end(memory),
        })
    }

    pub fn path(&self) -> &Path {
        self.path
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Up to `len` bytes at `offset`; fewer where the file ends.
    pub fn prefix(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let bytes = read_at(&self.file, offset, len as usize);
        bytes.map_err(|source| self.unreadable(source))
    }

    pub fn seek(&mut self, offset: u64) -> Result<(), Error> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map(|_| ()).map_err(|source| self.unreadable(source))
    }

    pub fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            path: self.path.to_owned(),
            source,
        }
    }

    /// `len` bytes at `offset`, or the file is truncated.
    pub fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        self.require_len(offset.saturating_add(len))?;
        self.prefix(offset, len)
    }

    pub fn require_len(&self, needed: u64) -> Result<(), Error> {
        if needed > self.len {
            return Err(Error::Truncated {
                path: self.path.to_owned(),
                needed,
                found: self.len,
            });
        }
        Ok(())
    }

    pub fn require_ram(&self, needed: u64) -> Result<(), Error> {
        if needed > self.ram_end {
            let path = self.path.to_owned();
            return Err(Error::TooLarge {
                path,
                needed,
                ram: self.ram_end,
            });
        }
        Ok(())
    }

    pub fn malformed(&self, problem: impl ToString) -> Error {
        Error::Malformed {
            path: self.path.to_owned(),
            problem: problem.to_string(),
        }
    }

    pub fn nothing_to_load(&self) -> Error {
        self.malformed("it has no loadable segment")
    }

    /// Zeroes guest RAM that the file does not fill: after a reset it is not empty.
    pub fn clear(&self, memory: &GuestMemory, rest: Range<u64>) -> Result<(), Error> {
        clear(memory, rest).map_err(|error| self.malformed(error))
    }

    /// Checks a segment of `filesz` bytes at `offset`, which has `memsz` at `addr`.
    pub fn check_segment(
        &self,
        offset: u64,
        filesz: u64,
        addr: u64,
        memsz: u64,
    ) -> Result<(), Error> {
        self.require_len(offset.saturating_add(filesz))?;
        if addr < layout::HIGH_RAM.0 {
            return Err(Error::TooLow {
                path: self.path.to_owned(),
                addr,
            });
        }
        self.require_ram(addr.saturating_add(memsz.max(filesz)))
    }
}
