//! Loading a kernel and telling it about the machine.
//!
//! Three forms of kernel, three protocols: an ELF file with a PVH note starts by
//! the PVH protocol, and in 32 bits must have one; any other ELF file and a bzImage
//! start by the 64-bit boot protocol of Linux, a bzImage of 32 bits by the 32-bit one.

mod acpi;
mod entry;
mod kernel;
mod linux;
mod memory_map;
mod pvh;
mod ram_reader;
mod reset_vector;

use std::path::{Path, PathBuf};

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::layout;
use crate::vcpu::Vcpu;

use ram_reader::RamReader;

pub use acpi::{SLEEP_TYPE_OFF, VirtioSlot};
pub use kernel::Error as KernelError;

/// What to boot.
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

/// Where a file lies in guest RAM.
#[derive(Clone, Copy, Debug)]
struct Placed {
    addr: u64,
    size: u64,
}

/// Puts kernel, initrd, command line, tables and boot parameters into guest RAM
/// and sets the boot vCPU's registers. Can be done again after a reset.
pub fn load(memory: &GuestMemory, config: &Config) -> Result<Entry, Error> {
    let kernel = kernel::load(memory, &config.kernel)?;
    let initrd = config
        .initrd
        .as_deref()
        .map(|path| load_initrd(memory, path, &kernel))
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
    path: &Path,
    kernel: &kernel::Kernel,
) -> Result<Placed, Error> {
    let failed = |source| Error::Initrd {
        path: path.to_owned(),
        source,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
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
