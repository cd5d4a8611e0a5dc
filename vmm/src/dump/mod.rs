//! Crash dumps: RAM and registers of a stopped machine in one file, for crash,
//! makedumpfile, drgn and gdb.
//!
//! The formats are those of QEMU's `dump-guest-memory`: an ELF core file of the machine, with
//! the addresses of a Linux kernel in it as kdump writes them, or kdump-compressed. A kernel needs no
//! preparation for it: its VMCOREINFO is found in its memory.
//!
//! | module | what it does |
//! |---|---|
//! | `output` | the file or pipe |
//! | `ram` | the guest's memory, without what is zero |
//! | `kernel` | VMCOREINFO of Linux, and where its kernel is mapped |
//! | `stacks` | the stacks that vCPUs run on |
//! | `notes` | the registers |
//! | `elf` | the headers of an ELF file |
//! | `kdump` | the other format, in which pages are compressed |
//! | `compress` | their compression by several threads |

mod compress;
mod elf;
mod kdump;
mod kernel;
mod notes;
mod output;
mod ram;
mod stacks;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::inspect::DumpFormat;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::kvm;
use crate::vcpu::{self, Handle};
use crate::vcpus::{self, Vcpus};
use elf::Segment;
use kernel::Kernel;
pub use output::Output;
use stacks::StackPage;

const STACK_PAGE: u64 = ram::PAGE as u64;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the guest cannot be stopped for a dump")]
    Pause(#[source] vcpus::Error),
    #[error("the guest is dumped, but cannot be resumed")]
    Resume(#[source] vcpus::Error),
    #[error("a debugger is attached, or its trace runs: use its `monitor dump FILE`, or detach it")]
    Debugged,
    #[error("the registers of vCPU {vcpu} cannot be read for a dump")]
    Vcpu {
        vcpu: usize,
        #[source]
        source: vcpu::Error,
    },
    #[error("the registers of vCPU {vcpu} cannot be read for a dump")]
    Registers {
        vcpu: usize,
        #[source]
        source: kvm::Error,
    },
    #[error("cannot open {} for a dump", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the dump {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot write the dump")]
    WriteTo(#[source] io::Error),
}

/// A machine to dump. Its vCPUs are stopped.
pub struct Snapshot<'a> {
    memory: &'a GuestMemory,
    registers: Vec<Registers>,
    /// Puts what a debugger has planted in memory that was read there out of sight.
    hide: &'a dyn Fn(u64, &mut [u8]),
}

/// What was dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of RAM.
    pub ram: u64,
    /// Those of pages with something in them.
    pub written: u64,
    /// Whether a Linux kernel's VMCOREINFO is in it.
    pub has_kernel: bool,
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let kernel = match self.has_kernel {
            true => "with Linux's VMCOREINFO",
            false => "no Linux kernel was found in it",
        };
        write!(
            f,
            "{} MiB of RAM, {} MiB of it not zero, in {:.2} s, {kernel}",
            mib(self.ram),
            mib(self.written),
            self.elapsed.as_secs_f64()
        )
    }
}

impl<'a> Snapshot<'a> {
    pub fn new(memory: &'a GuestMemory, vcpus: &[Handle]) -> Result<Self, Error> {
        let registers = (0..).zip(vcpus).map(|(vcpu, handle)| {
            let answer = handle.request(|vcpu| vcpu.registers());
            let registers = answer.map_err(|source| Error::Vcpu { vcpu, source })?;
            registers.map_err(|source| Error::Registers { vcpu, source })
        });
        Ok(Self {
            memory,
            registers: registers.collect::<Result<_, _>>()?,
            hide: &|_, _| {},
        })
    }

    /// The same without what `hide` takes out of memory that was read at an address.
    pub fn hiding(self, hide: &'a dyn Fn(u64, &mut [u8])) -> Self {
        Self { hide, ..self }
    }

    /// Dumps into a new file, or over one that is there. What fails leaves none.
    pub fn save(&self, path: &Path, format: DumpFormat) -> Result<Summary, Error> {
        save_by(path, |output| self.write(output, format))
    }

    /// An ELF file of the RAM in `range`.
    pub fn save_part(&self, path: &Path, range: Range<u64>) -> Result<Summary, Error> {
        save_by(path, |output| self.write_part(output, range))
    }

    pub fn write(&self, output: Output, format: DumpFormat) -> io::Result<Summary> {
        match format {
            DumpFormat::Elf => self.write_part(output, 0..u64::MAX),
            DumpFormat::Kdump => self.write_compressed(&output.into_file()?),
        }
    }

    /// An ELF file of the RAM in `range`, and all of the registers.
    pub fn write_part(&self, mut output: Output, range: Range<u64>) -> io::Result<Summary> {
        let begun = Instant::now();
        let kernel = Kernel::find(self.memory, &self.registers);
        let notes = notes::all(&self.registers, kernel.as_ref());
        let regions = regions(self.memory, &range);
        let stacks = stacks::pages(self.memory, &self.registers);
        let segments = segments(&regions, kernel.as_ref(), &stacks);
        let headers = elf::headers(notes.len() as u64, &segments);
        let start = (headers.len() + notes.len()).next_multiple_of(elf::ALIGN) as u64;
        output.put(0, &headers)?;
        output.put(headers.len() as u64, &notes)?;
        let mut at = start;
        let mut written = 0;
        for region in &regions {
            written += self.for_each_piece(region, |addr, bytes| {
                output.put(at + (addr - region.start), bytes)
            })?;
            at += region.end - region.start;
        }
        output.finish(at)?;
        Ok(Summary {
            ram: at - start,
            written,
            has_kernel: kernel.is_some(),
            elapsed: begun.elapsed(),
        })
    }

    fn write_compressed(&self, file: &File) -> io::Result<Summary> {
        let begun = Instant::now();
        let kernel = Kernel::find(self.memory, &self.registers);
        let notes = notes::all(&self.registers, kernel.as_ref());
        let about = kdump::About {
            cpus: self.registers.len() as u32,
            notes: &notes,
            vmcoreinfo: notes::vmcoreinfo(&notes, kernel.as_ref()),
            release: kernel.as_ref().map_or(b"", Kernel::release),
            phys_base: kernel.as_ref().map_or(0, Kernel::phys_base),
        };
        let regions = regions(self.memory, &(0..u64::MAX));
        let mut writer = kdump::Writer::begin(file, &regions, &about)?;
        let mut written = 0;
        for region in &regions {
            written += self.for_each_piece(region, |addr, bytes| writer.put(addr, bytes))?;
        }
        writer.finish()?;
        Ok(Summary {
            ram: regions.iter().map(|region| region.end - region.start).sum(),
            written,
            has_kernel: kernel.is_some(),
            elapsed: begun.elapsed(),
        })
    }

    /// Calls `f` with what is not zero in a part of RAM, and returns how much that is.
    fn for_each_piece(
        &self,
        range: &Range<u64>,
        mut f: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut len = 0;
        ram::for_each_piece(self.memory, range, |addr, bytes| {
            (self.hide)(addr, bytes);
            len += bytes.len() as u64;
            f(addr, bytes)
        })?;
        Ok(len)
    }
}

/// Has `write` write a file that is there only if that succeeds.
fn save_by(
    path: &Path,
    write: impl FnOnce(Output) -> io::Result<Summary>,
) -> Result<Summary, Error> {
    let failed = |source| Error::Open {
        path: path.to_owned(),
        source,
    };
    let output = Output::create(path).map_err(failed)?;
    write(output).map_err(|source| {
        // It would look like a dump. The first error is the one to tell.
        let _ = std::fs::remove_file(path);
        Error::Write {
            path: path.to_owned(),
            source,
        }
    })
}

/// Stops the guest for as long as `dump` takes, unless it is stopped.
pub fn with_stopped<T>(
    vcpus: &Vcpus,
    memory: &GuestMemory,
    dump: impl FnOnce(&Snapshot<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut group = vcpus.group();
    if group.is_debugged() {
        return Err(Error::Debugged);
    }
    let was_stopped = group.is_stopped();
    if !was_stopped {
        group.try_pause().map_err(Error::Pause)?;
    }
    let dumped = Snapshot::new(memory, vcpus.handles()).and_then(|snapshot| dump(&snapshot));
    if !was_stopped {
        group.resume_as_before().map_err(Error::Resume)?;
    }
    dumped
}

/// The parts of RAM in `range`.
fn regions(memory: &GuestMemory, range: &Range<u64>) -> Vec<Range<u64>> {
    let regions = memory.iter().map(|region| {
        let start = region.start_addr().0;
        start.max(range.start)..(start + region.len()).min(range.end)
    });
    regions.filter(|region| !region.is_empty()).collect()
}

/// All RAM by its addresses in the kernel's direct map, one region behind the other in the
/// file. Before it, as in a file of kdump, the kernel's image by its own addresses, which are
/// of the same memory; and before both the pages of stacks. makedumpfile (1.7.2) takes the last
/// segment below the image for the direct map.
fn segments(regions: &[Range<u64>], kernel: Option<&Kernel>, stacks: &[StackPage]) -> Vec<Segment> {
    let direct_map = kernel.and_then(|kernel| kernel.direct_map).unwrap_or(0);
    let image = kernel.map(|kernel| &kernel.image);
    let image = image.map(|image| (image.virt, image.phys, image.len));
    let ram = regions.iter().map(|region| {
        let virt = direct_map.wrapping_add(region.start);
        (virt, region.start, region.end - region.start)
    });
    let mapped = image.into_iter().chain(ram);
    let mapped = mapped.filter_map(|(virt, phys, len)| segment(regions, virt, phys, len));
    let mapped: Vec<_> = mapped.collect();
    let stacks = stacks.iter().filter(|page| {
        let mut known = mapped.iter();
        !known.any(|segment| segment.maps(page.virt, page.phys))
    });
    let stacks = stacks.filter_map(|page| segment(regions, page.virt, page.phys, STACK_PAGE));
    stacks.chain(mapped.iter().copied()).collect()
}

/// As much of it as is in the file, in one piece.
fn segment(regions: &[Range<u64>], virt: u64, phys: u64, len: u64) -> Option<Segment> {
    let mut offset = 0;
    for region in regions {
        if region.contains(&phys) {
            return Some(Segment {
                virt,
                phys,
                len: len.min(region.end - phys),
                offset: offset + (phys - region.start),
            });
        }
        offset += region.end - region.start;
    }
    None
}

#[cfg(test)]
#[path = "dump_test.rs"]
mod tests;
