//! What a reader of a dump has to know of a Linux kernel in it.
//!
//! The kernel keeps a note for its own crash dumps, VMCOREINFO (kernel/vmcore_info.c,
//! formerly crash_core.c): a page of lines, NAME(WHAT)=VALUE, behind the head of an ELF
//! note. Any kernel with kexec has it, prepared for kdump or not. It is at the beginning of
//! a page, and recognised by what it says: the page tables that it names have to map the
//! kernel where it says.

use std::ops::Range;

use devices::virtio::GuestMemory;
use gdb::arch::Registers;
use gdb::paging::{AddressSpace, Limits, Mode, Row, WalkError};
use gdb::target::VirtAddr;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::ram::{Extents, PAGE, reader};

/// The head of the note: sizes of name and text, type, and the name with its padding.
const NAME: &[u8; 11] = b"VMCOREINFO\0";
const HEAD: usize = 12 + 12;
/// Most bytes of the text (VMCOREINFO_BYTES).
const MAX_TEXT: usize = 4096;

/// Most pages that look like the note and are looked into.
const MAX_CANDIDATES: usize = 64;

/// Where the image is mapped from, and may be (Documentation/arch/x86/x86_64/mm.rst).
const IMAGE_MAP: u64 = 0xffff_ffff_8000_0000;
const IMAGE_END: u64 = 0xffff_ffff_c000_0000;
/// The lowest addresses of the direct map of all RAM, with 4 and 5 levels; KASLR moves it up
/// by GiB.
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
const DIRECT_MAP_5: u64 = 0xff11_0000_0000_0000;
const DIRECT_MAP_STEP: u64 = 1 << 30;
/// Page tables that are read to find its first page.
const MAX_TABLES: usize = 1024;

/// A kernel that is in memory.
#[derive(Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The text of its note.
    pub vmcoreinfo: Vec<u8>,
    pub image: Image,
    /// The virtual address of physical address 0, if the page tables tell.
    pub direct_map: Option<u64>,
}

/// The kernel's code and data.
#[derive(Debug, PartialEq, Eq)]
pub struct Image {
    pub virt: u64,
    pub phys: u64,
    pub len: u64,
}

impl Kernel {
    /// The kernel that the vCPUs run, or the first one that is whole. Memory may have some
    /// of an earlier boot.
    pub fn find(memory: &GuestMemory, registers: &[Registers]) -> Option<Self> {
        let texts = candidates(memory);
        let whole = texts.into_iter().filter_map(|text| {
            let map = Map::of(&text)?;
            map.is_whole(memory).then_some((text, map))
        });
        let mut whole: Vec<_> = whole.collect();
        let running = whole
            .iter()
            .position(|(_, map)| registers.iter().any(|vcpu| map.is_used(memory, vcpu)));
        let (vmcoreinfo, map) = match whole.is_empty() {
            true => return None,
            false => whole.swap_remove(running.unwrap_or(0)),
        };
        Some(Self {
            vmcoreinfo,
            image: map.image(memory),
            direct_map: map.direct_map(memory),
        })
    }
}

impl Kernel {
    /// The physical address of where the image is mapped from; below 0 it wraps.
    pub fn phys_base(&self) -> u64 {
        let offset = self.image.virt.wrapping_sub(IMAGE_MAP);
        self.image.phys.wrapping_sub(offset)
    }

    /// As `uname -r` says it.
    pub fn release(&self) -> &[u8] {
        let mut lines = self.vmcoreinfo.split(|byte| *byte == b'\n');
        let release = lines.find_map(|line| line.strip_prefix(b"OSRELEASE="));
        release.unwrap_or_default()
    }
}

/// The texts of what looks like the note.
fn candidates(memory: &GuestMemory) -> Vec<Vec<u8>> {
    let regions = memory.iter().map(|region| {
        let start = region.start_addr().0;
        start..start + region.len()
    });
    let pages = regions.flat_map(|region| Extents::new(memory, region).flat_map(pages));
    let texts = pages.filter_map(|page| text(memory, page));
    texts.take(MAX_CANDIDATES).collect()
}

fn pages(extent: Range<u64>) -> impl Iterator<Item = u64> {
    extent.step_by(PAGE)
}

/// The text of the note in `page`, if it has one.
fn text(memory: &GuestMemory, page: u64) -> Option<Vec<u8>> {
    let mut head = [0; HEAD];
    memory.read_slice(&mut head, GuestAddress(page)).ok()?;
    let word = |n: usize| u32::from_le_bytes([head[n], head[n + 1], head[n + 2], head[n + 3]]);
    let len = word(4) as usize;
    let is_note = word(0) as usize == NAME.len() && word(8) == 0 && head[12..].starts_with(NAME);
    if !is_note || len == 0 || len > MAX_TEXT {
        return None;
    }
    let mut text = vec![0; len];
    let at = GuestAddress(page + HEAD as u64);
    memory.read_slice(&mut text, at).ok()?;
    Some(text)
}

/// Where a kernel says that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Map {
    /// The beginning of its code.
    text: u64,
    /// What [`IMAGE_MAP`] is the virtual address of.
    phys_base: u64,
    space: AddressSpace,
}

impl Map {
    fn of(vmcoreinfo: &[u8]) -> Option<Self> {
        let lines = std::str::from_utf8(vmcoreinfo).ok()?;
        let value = |name: &str| {
            let mut lines = lines.lines();
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
        };
        let symbol = |name: &str| u64::from_str_radix(value(&format!("SYMBOL({name})"))?, 16).ok();
        let phys_base = value("NUMBER(phys_base)")?.parse::<i64>().ok()? as u64;
        let tables = symbol("swapper_pg_dir").or_else(|| symbol("init_top_pgt"))?;
        let has_5_levels = value("NUMBER(pgtable_l5_enabled)") == Some("1");
        let mode = match has_5_levels {
            true => Mode::Level5,
            false => Mode::Level4,
        };
        Some(Self {
            text: symbol("_stext")?,
            phys_base,
            space: AddressSpace {
                mode,
                root: tables.wrapping_sub(IMAGE_MAP).wrapping_add(phys_base),
                no_execute: true,
            },
        })
    }

    /// The physical address of one in the image.
    fn phys(&self, addr: u64) -> u64 {
        addr.wrapping_sub(IMAGE_MAP).wrapping_add(self.phys_base)
    }

    /// Whether the page tables that it names map the image where it says.
    fn is_whole(&self, memory: &GuestMemory) -> bool {
        self.maps_text(memory, &self.space)
    }

    /// Whether a vCPU has this kernel in its page tables.
    fn is_used(&self, memory: &GuestMemory, vcpu: &Registers) -> bool {
        self.maps_text(memory, &AddressSpace::of(vcpu))
    }

    fn maps_text(&self, memory: &GuestMemory, space: &AddressSpace) -> bool {
        let page = space.translate(VirtAddr(self.text), reader(memory));
        page.is_ok_and(|page| page.phys.0 == self.phys(self.text))
    }

    /// The image from its code to the last page of it that is mapped. There are holes in it
    /// where the kernel has freed what it needed to start.
    fn image(&self, memory: &GuestMemory) -> Image {
        let mut end = self.text;
        let mut at = self.text;
        while (self.text..IMAGE_END).contains(&at) {
            let page = self.space.translate(VirtAddr(at), reader(memory));
            let size = match &page {
                Ok(page) => page.page_size,
                Err(WalkError::NotPresent { level } | WalkError::Reserved { level, .. }) => {
                    (PAGE as u64) << (9 * (u32::from(*level) - 1))
                }
                Err(_) => break,
            };
            let next = (at | (size - 1)).wrapping_add(1);
            if page.is_ok_and(|page| page.phys.0 == self.phys(at)) {
                end = next;
            }
            at = next;
        }
        Image {
            virt: self.text,
            phys: self.phys(self.text),
            len: end - self.text,
        }
    }

    /// The virtual address of physical address 0, by the first page of all of the direct map.
    fn direct_map(&self, memory: &GuestMemory) -> Option<u64> {
        let lowest = match self.space.mode {
            Mode::Level5 => DIRECT_MAP_5,
            _ => DIRECT_MAP,
        };
        let limits = Limits {
            tables: MAX_TABLES,
            rows: 1,
        };
        let ranges = self
            .space
            .ranges((lowest, IMAGE_MAP), limits, reader(memory));
        let Some(Row::Span(first)) = ranges.rows.first() else {
            return None;
        };
        let page = self.space.translate(VirtAddr(first.start), reader(memory));
        let start = first.start.checked_sub(page.ok()?.phys.0)?;
        start.is_multiple_of(DIRECT_MAP_STEP).then_some(start)
    }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
