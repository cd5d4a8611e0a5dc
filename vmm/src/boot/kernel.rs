//! Finding the format of a kernel file, and loading it.
//!
//! The checks before give the user one clear line instead of a guest that dies at once.

mod bzimage;
mod clear;
mod elf;
mod looks;
mod parts;

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use devices::virtio::GuestMemory;
use linux_loader::loader::bootparam::setup_header;

use super::kept::{self, Kept, read_at};
use super::{Entry, memory_map};
use crate::layout;
use clear::clear;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open kernel {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read kernel {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "kernel {} has no end within {limit} bytes, which is all of guest RAM; give a file, \
         or more with --memory", path.display()
    )]
    Endless { path: PathBuf, limit: u64 },
    #[error(
        "kernel {} is neither an ELF file nor a bzImage ({looks}); give a vmlinux or a bzImage",
        path.display()
    )]
    Unknown { path: PathBuf, looks: String },
    #[error("cannot open kernel {}: it is a directory{}", path.display(), kernel_in(path))]
    Directory { path: PathBuf },
    #[error(
        "kernel {} is made for {machine}; this machine is x86-64 and needs an x86 kernel",
        path.display()
    )]
    WrongMachine { path: PathBuf, machine: String },
    #[error(
        "kernel {} is truncated: it needs {needed} bytes and has {found}", path.display()
    )]
    Truncated {
        path: PathBuf,
        needed: u64,
        found: u64,
    },
    #[error(
        "kernel {} does not fit into guest RAM: it reaches up to {needed:#x} and RAM \
         below the MMIO hole ends at {ram:#x}; give more with --memory", path.display()
    )]
    TooLarge {
        path: PathBuf,
        needed: u64,
        ram: u64,
    },
    #[error(
        "kernel {} loads at {addr:#x}, below 1 MiB where boot data lies; link it \
         higher", path.display()
    )]
    TooLow { path: PathBuf, addr: u64 },
    #[error(
        "kernel {} is a 32-bit ELF file and has no PVH note (XEN_ELFNOTE_PHYS32_ENTRY) that \
         says where it is entered; build Linux with CONFIG_PVH, or give its bzImage", path.display()
    )]
    NoEntry { path: PathBuf },
    #[error(
        "kernel {} has boot protocol {}.{}, without the addresses that it needs; it must be \
         of Linux 2.6.31 or later (protocol 2.10)", path.display(), version >> 8, version & 0xff
    )]
    TooOld { path: PathBuf, version: u16 },
    #[error("kernel {}: {problem}", path.display())]
    Malformed { path: PathBuf, problem: String },
}

/// The path of the kernel in a directory, if that is a kernel's build directory.
fn kernel_in(dir: &Path) -> String {
    let kernels = ["vmlinux", "arch/x86/boot/bzImage"];
    let found = kernels
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    found.map_or(String::new(), |path| format!("; give {}", path.display()))
}

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
struct Image<'a> {
    file: File,
    path: &'a Path,
    len: u64,
    ram_end: u64,
}

/// Finds the parts that are needed of the kernel at `path`, for a machine with so much RAM.
pub fn read(path: &Path, ram: u64) -> Result<Kept, Error> {
    Kept::parts(path, ram, parts::needed).map_err(|error| {
        let path = path.to_owned();
        match error {
            kept::Error::Open(source) if source.kind() == io::ErrorKind::IsADirectory => {
                Error::Directory { path }
            }
            kept::Error::Open(source) => Error::Open { path, source },
            kept::Error::Read(source) => Error::Read { path, source },
            kept::Error::TooLarge(limit) | kept::Error::Endless(limit) => {
                Error::Endless { path, limit }
            }
        }
    })
}

/// Loads a kernel.
pub fn load(memory: &GuestMemory, kernel: &Kept) -> Result<Kernel, Error> {
    let path = kernel.path();
    let file = kernel.open().map_err(|source| Error::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut image = Image {
        file,
        path,
        len: kernel.len(),
        ram_end: memory_map::low_ram_end(memory),
    };
    let start = image.prefix(0, looks::LEN)?;
    if start.starts_with(b"\x7fELF") {
        image.load_elf(memory)
    } else if image.is_bzimage()? {
        image.load_bzimage(memory)
    } else {
        Err(Error::Unknown {
            path: path.to_owned(),
            looks: looks::like(&start),
        })
    }
}

const ELF_PROGRAM_HEADER_LEN: u64 = 56;
/// The part of an ELF header that tells the kinds of files apart: up to `e_machine`.
const ELF_KIND_LEN: u64 = 20;
const ELFCLASS32: u8 = 1;
const ELFCLASS64: u8 = 2;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;

impl Image<'_> {
    /// Up to `len` bytes at `offset`; fewer where the file ends.
    fn prefix(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        let bytes = read_at(&self.file, offset, len as usize);
        bytes.map_err(|source| self.unreadable(source))
    }

    fn seek(&mut self, offset: u64) -> Result<(), Error> {
        let sought = self.file.seek(SeekFrom::Start(offset));
        sought.map(|_| ()).map_err(|source| self.unreadable(source))
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Read {
            path: self.path.to_owned(),
            source,
        }
    }

    /// `len` bytes at `offset`, or the file is truncated.
    fn bytes(&self, offset: u64, len: u64) -> Result<Vec<u8>, Error> {
        self.require_len(offset.saturating_add(len))?;
        self.prefix(offset, len)
    }

    fn require_len(&self, needed: u64) -> Result<(), Error> {
        if needed > self.len {
            return Err(Error::Truncated {
                path: self.path.to_owned(),
                needed,
                found: self.len,
            });
        }
        Ok(())
    }

    fn require_ram(&self, needed: u64) -> Result<(), Error> {
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

    fn malformed(&self, problem: impl ToString) -> Error {
        Error::Malformed {
            path: self.path.to_owned(),
            problem: problem.to_string(),
        }
    }

    fn nothing_to_load(&self) -> Error {
        self.malformed("it has no loadable segment")
    }

    fn load_elf(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        let kind = self.bytes(0, ELF_KIND_LEN)?;
        let (class, machine) = (kind[4], u16_at(&kind, 18));
        match (class, machine) {
            (ELFCLASS64, EM_X86_64) => self.load_elf64(memory),
            (ELFCLASS32, EM_386) => self.load_elf32(memory),
            _ => {
                let bits = if class == ELFCLASS64 { 64 } else { 32 };
                Err(Error::WrongMachine {
                    path: self.path.to_owned(),
                    machine: format!("{} ({bits}-bit)", elf_machine_name(machine)),
                })
            }
        }
    }

    /// Zeroes guest RAM that the file does not fill: after a reset it is not empty.
    fn clear(&self, memory: &GuestMemory, rest: Range<u64>) -> Result<(), Error> {
        clear(memory, rest).map_err(|error| self.malformed(error))
    }

    /// Checks a segment of `filesz` bytes at `offset`, which has `memsz` at `addr`.
    fn check_segment(&self, offset: u64, filesz: u64, addr: u64, memsz: u64) -> Result<(), Error> {
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

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, offset))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, offset))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, offset))
}

/// `N` bytes of a header whose length was checked; a short one reads as zeros.
fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> [u8; N] {
    let mut array = [0; N];
    if let Some(found) = bytes.get(offset..offset + N) {
        array.copy_from_slice(found);
    }
    array
}

/// Names of the machines that people cross-compile for.
fn elf_machine_name(machine: u16) -> String {
    match machine {
        EM_386 => "x86".into(),
        EM_X86_64 => "x86-64".into(),
        40 => "Arm".into(),
        183 => "AArch64".into(),
        243 => "RISC-V".into(),
        21 => "64-bit PowerPC".into(),
        22 => "S/390".into(),
        258 => "LoongArch".into(),
        other => format!("ELF machine {other}"),
    }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
pub mod tests;
