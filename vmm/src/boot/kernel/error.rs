//! Kernel files that cannot be booted.

use std::io;
use std::path::{Path, PathBuf};

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
