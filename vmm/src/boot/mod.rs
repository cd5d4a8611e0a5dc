//! Loading a kernel and telling it about the machine.
//!
//! Three forms of kernel, three protocols: an ELF file with a PVH note starts by
//! the PVH protocol, and in 32 bits must have one; any other ELF file and a bzImage
//! start by the 64-bit boot protocol of Linux, a bzImage of 32 bits by the 32-bit one.

mod acpi;
mod entry;
mod kept;
mod kernel;
mod linux;
mod memory_map;
mod pvh;
mod ram_reader;
mod reset_vector;
mod source;

use std::path::{Path, PathBuf};

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;
use crate::vcpu::Vcpu;

use ram_reader::RamReader;

pub use acpi::{SLEEP_TYPE_OFF, VirtioSlot};
use kept::Kept;
pub use kernel::Error as KernelError;
pub use source::{ReloadError, Source};

/// The kernel to boot, and its boot data.
#[derive(Clone, Debug)]
pub struct Config {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    pub cmdline: String,
    pub cpus: u8,
    pub devices: Vec<VirtioSlot>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error("cannot read initrd {}", path.display())]
    Initrd {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot keep a copy of {} for reboots", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("initrd {} is empty", .0.display())]
    InitrdEmpty(PathBuf),
    #[error(
        "initrd {} has no end within {limit} bytes, which is all of guest RAM; give a file, \
         or more with --memory", path.display()
    )]
    InitrdEndless { path: PathBuf, limit: u64 },
    #[error(
        "initrd {} ({size} bytes) does not fit: {room} bytes of guest RAM are left \
         above the kernel; give more with --memory", path.display()
    )]
    InitrdTooLarge { path: PathBuf, size: u64, room: u64 },
    #[error(
        "the command line is {len} bytes long; Linux takes {}",
        layout::CMDLINE_MAX - 1
    )]
    CmdlineTooLong { len: usize },
    #[error("the command line contains a NUL byte")]
    CmdlineNul,
    #[error("the ACPI tables need {size} bytes and have {room}; use fewer vCPUs or devices")]
    AcpiTooLarge { size: u64, room: u64 },
    #[error("cannot write boot data to guest RAM")]
    Memory(#[from] vm_memory::GuestMemoryError),
    #[error("cannot set the boot vCPU's registers")]
    Registers(#[from] crate::kvm::Error),
}

/// How the boot vCPU starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// 32-bit protected mode without paging, start info in RBX.
    Pvh { rip: u64 },
    /// 32-bit protected mode without paging, zero page in RSI.
    Linux32 { rip: u64 },
    /// 64-bit mode with identity paging, zero page in RSI.
    Linux64 { rip: u64 },
}

/// The files of a [`Config`].
struct Files {
    kernel: Kept,
    initrd: Option<Kept>,
}

impl Files {
    /// Reads them, for a machine with so much RAM.
    fn read(config: &Config, ram: u64) -> Result<Self, Error> {
        let kernel = kernel::read(&config.kernel, ram)?;
        let initrd = config.initrd.as_deref();
        let initrd = initrd.map(|path| read_initrd(path, ram)).transpose()?;
        Ok(Self { kernel, initrd })
    }

    /// Makes them independent of later changes to the user's files.
    fn keep(&self) -> Result<(), Error> {
        for file in std::iter::once(&self.kernel).chain(&self.initrd) {
            file.keep().map_err(|source| Error::Keep {
                path: file.path().to_owned(),
                source,
            })?;
        }
        Ok(())
    }
}

fn read_initrd(path: &Path, ram: u64) -> Result<Kept, Error> {
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

/// Where a file lies in guest RAM.
#[derive(Clone, Copy, Debug)]
struct Placed {
    addr: u64,
    size: u64,
}

/// Puts kernel, initrd, command line, tables and boot parameters into guest RAM. Can
/// be done again after a reset.
fn load(memory: &GuestMemory, config: &Config, files: &Files) -> Result<Entry, Error> {
    let kernel = kernel::load(memory, &files.kernel)?;
    let initrd = files.initrd.as_ref();
    let initrd = initrd
        .map(|initrd| load_initrd(memory, initrd, &kernel))
        .transpose()?;
    write_cmdline(memory, &config.cmdline)?;
    acpi::write(memory, config.cpus, &config.devices)?;
    reset_vector::write(memory)?;
    match kernel.entry {
        Entry::Pvh { .. } => pvh::write(memory, initrd)?,
        Entry::Linux32 { .. } | Entry::Linux64 { .. } => {
            linux::write(memory, &kernel, initrd, &config.cmdline)?;
        }
    }
    entry::write_tables(memory, kernel.entry)?;
    Ok(kernel.entry)
}

/// Sets the boot vCPU's registers for `entry`.
pub fn set_registers(vcpu: &Vcpu, entry: Entry) -> Result<(), crate::kvm::Error> {
    entry::set_registers(vcpu, entry)
}

/// Places the initrd as high as the kernel can reach, page-aligned.
fn load_initrd(
    memory: &GuestMemory,
    initrd: &Kept,
    kernel: &kernel::Kernel,
) -> Result<Placed, Error> {
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

fn write_cmdline(memory: &GuestMemory, cmdline: &str) -> Result<(), Error> {
    if cmdline.len() >= layout::CMDLINE_MAX {
        return Err(Error::CmdlineTooLong { len: cmdline.len() });
    }
    if cmdline.contains('\0') {
        return Err(Error::CmdlineNul);
    }
    memory.write_slice(cmdline.as_bytes(), layout::CMDLINE)?;
    let end = GuestAddress(layout::CMDLINE.0 + cmdline.len() as u64);
    memory.write_obj(0u8, end)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;
    use crate::memory;

    /// A 64-bit ELF kernel that is one page of `byte`.
    fn kernel(byte: u8) -> Vec<u8> {
        let mut elf = kernel::tests::elf(0x20_0000, 0x1000, 0x1000);
        let len = elf.len();
        elf[len - 0x1000..].fill(byte);
        elf
    }

    fn source(kernel: &Path, initrd: Option<&Path>) -> Result<Source, Error> {
        let config = Config {
            kernel: kernel.to_owned(),
            initrd: initrd.map(Path::to_owned),
            cmdline: String::new(),
            cpus: 1,
            devices: Vec::new(),
        };
        Source::read(config, memory::MIN_SIZE)
    }

    /// The byte at the kernel's address after a boot.
    fn booted(source: &Source) -> u8 {
        let memory = memory::allocate(memory::MIN_SIZE).unwrap();
        source.load(&memory).unwrap();
        memory.read_obj(GuestAddress(0x20_0000)).unwrap()
    }

    #[test]
    fn what_was_booted_boots_again_whatever_has_become_of_the_files() {
        let dir = tempfile::tempdir().unwrap();
        let [path, initrd] = ["kernel", "initrd"].map(|name| dir.path().join(name));
        std::fs::write(&path, kernel(1)).unwrap();
        std::fs::write(&initrd, b"first").unwrap();
        let source = source(&path, Some(&initrd)).unwrap();
        assert_eq!(booted(&source), 1);
        source.keep().unwrap();
        // In place, as a build does that copies.
        std::fs::write(&path, &kernel(2)[..0x1800]).unwrap();
        std::fs::write(&initrd, b"").unwrap();
        assert_eq!(booted(&source), 1);
        assert!(source.reload().is_err(), "half a kernel");
        assert_eq!((booted(&source), source.reloads()), (1, 0));
        std::fs::write(&path, kernel(2)).unwrap();
        assert!(source.reload().is_err(), "no initrd");
        std::fs::write(&initrd, b"second").unwrap();
        source.reload().unwrap();
        assert_eq!((booted(&source), source.reloads()), (2, 1));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(booted(&source), 2);
        assert!(source.reload().is_err());
        assert_eq!(booted(&source), 2);
    }

    #[test]
    fn an_initrd_may_come_through_a_pipe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, kernel(1)).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        let initrd = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let source = source(&path, Some(Path::new(&initrd))).unwrap();
        for _ in 0..2 {
            let memory = memory::allocate(memory::MIN_SIZE).unwrap();
            source.load(&memory).unwrap();
            let mut found = [0; 6];
            let addr = GuestAddress(memory::MIN_SIZE - 0x1000);
            memory.read_slice(&mut found, addr).unwrap();
            assert_eq!(&found, b"piped\0");
        }
    }

    #[test]
    fn files_without_end_or_contents_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        std::fs::write(&path, kernel(1)).unwrap();
        for (initrd, part) in [
            ("/dev/zero", "no end"),
            ("/dev/null", "is empty"),
            ("/", "cannot read"),
        ] {
            let error = source(&path, Some(Path::new(initrd)))
                .map(|_| ())
                .unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        let endless = source(Path::new("/dev/zero"), None)
            .map(|_| ())
            .unwrap_err();
        assert!(endless.to_string().contains("no end"), "{endless}");
    }
}
