//! Why a machine does not boot.

use std::path::PathBuf;

use super::kernel::Error as KernelError;
use crate::layout;

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
