//! The kdump-compressed format: pages by their numbers, each of them compressed by zlib.
//!
//! It is that of makedumpfile (diskdump_mod.h) and of QEMU (include/system/dump.h), version 6.
//! In blocks of a page there are: a header; a second one with the notes; a bit for each page
//! that is RAM, and one for each that is in the file; a descriptor of each of these; and their
//! contents. As in QEMU's files pages of zeros have descriptors that share one page, so that
//! no reader has to be told that they were left out.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::compress::{Pool, Run};
use super::ram::PAGE;

const BLOCK: u64 = PAGE as u64;

/// `struct disk_dump_header`, and the places in it.
const SIGNATURE: &[u8; 8] = b"KDUMP   ";
const VERSION: u32 = 6;
const VERSION_AT: usize = 8;
/// `struct new_utsname` has six texts: system, node, release, version, machine, domain.
const UTSNAME_AT: usize = 12;
const UTSNAME: usize = 65;
const STATUS_AT: usize = 424;
/// That pages are compressed by zlib: in the status, and of a page.
const ZLIB: u32 = 1;

/// `struct kdump_sub_header`.
const SUB_HEADER: usize = 104;
/// Pages of zeros have no contents of their own (DUMP_EXCLUDE_ZERO of makedumpfile).
const DUMP_LEVEL: u64 = 1;

/// `struct page_desc`.
const DESCRIPTOR: usize = 24;

/// How much is written at once.
const CHUNK: usize = 1 << 20;

/// What a file says of the machine.
pub struct About<'a> {
    pub cpus: u32,
    pub notes: &'a [u8],
    /// The place of VMCOREINFO's text in the notes.
    pub vmcoreinfo: Range<usize>,
    /// The version of the kernel.
    pub release: &'a [u8],
    /// The physical address of the kernel's lowest virtual one.
    pub phys_base: u64,
}

/// Takes the pages in the order of their addresses.
pub struct Writer<'a> {
    regions: &'a [Range<u64>],
    descriptors: Piece<'a>,
    data: Piece<'a>,
    /// The descriptor that comes next.
    next: u64,
    /// That of a page of zeros.
    zeros: [u8; DESCRIPTOR],
    pool: Pool,
    /// The first descriptor of each run that is being compressed, in order.
    under_way: VecDeque<u64>,
}

impl<'a> Writer<'a> {
    /// Begins an empty file of the RAM in `regions`, whole pages in order.
    pub fn begin(file: &'a File, regions: &'a [Range<u64>], about: &About<'_>) -> io::Result<Self> {
        let pages: u64 = regions.iter().map(pages).sum();
        let end = regions.last().map_or(0, |last| last.end / BLOCK);
        let bitmap = bitmap(regions, end);
        let sub = sub_header(about, end);
        let head = header(about, sub.len(), 2 * bitmap.len(), pages, end);
        let mut at = 0;
        for part in [&head, &sub, &bitmap, &bitmap] {
            file.write_all_at(part, at)?;
            at += part.len() as u64;
        }
        // The page of zeros is a hole in the file.
        let zeros = at + pages * DESCRIPTOR as u64;
        Ok(Self {
            regions,
            descriptors: Piece::new(file, at),
            data: Piece::new(file, zeros + BLOCK),
            next: 0,
            zeros: descriptor(zeros, PAGE, 0),
            pool: Pool::start()?,
            under_way: VecDeque::new(),
        })
    }

    /// Whole pages at a physical address.
    pub fn put(&mut self, addr: u64, bytes: &[u8]) -> io::Result<()> {
        if self.pool.is_full() {
            self.write_next()?;
        }
        self.under_way.push_back(self.number(addr));
        self.pool.submit(bytes.to_vec())
    }

    pub fn finish(mut self) -> io::Result<()> {
        while self.write_next()? {}
        self.skip_to(self.regions.iter().map(pages).sum())?;
        self.descriptors.write()?;
        self.data.write()?;
        self.data.file.set_len(self.data.end())
    }

    /// Writes the oldest run that is under way, or returns that there is none.
    fn write_next(&mut self) -> io::Result<bool> {
        let (Some(run), Some(number)) = (self.pool.take(), self.under_way.pop_front()) else {
            return Ok(false);
        };
        self.skip_to(number)?;
        self.write_run(&run?)?;
        Ok(true)
    }

    fn write_run(&mut self, run: &Run) -> io::Result<()> {
        let mut at = self.data.end();
        for page in &run.pages {
            let flags = if page.is_compressed { ZLIB } else { 0 };
            self.descriptors.push(&descriptor(at, page.len, flags))?;
            at += page.len as u64;
        }
        self.next += run.pages.len() as u64;
        self.data.push(&run.contents)
    }

    /// The pages up to that with this descriptor are zero.
    fn skip_to(&mut self, number: u64) -> io::Result<()> {
        while self.next < number {
            self.descriptors.push(&self.zeros)?;
            self.next += 1;
        }
        Ok(())
    }

    /// The number of a page's descriptor.
    fn number(&self, addr: u64) -> u64 {
        let before = self.regions.iter().map(|region| {
            let end = region.end.min(addr.max(region.start));
            (end - region.start) / BLOCK
        });
        before.sum()
    }
}

fn pages(region: &Range<u64>) -> u64 {
    (region.end - region.start) / BLOCK
}

/// A part of the file that is written from its beginning on.
struct Piece<'a> {
    file: &'a File,
    at: u64,
    buffer: Vec<u8>,
}

impl<'a> Piece<'a> {
    fn new(file: &'a File, at: u64) -> Self {
        let buffer = Vec::with_capacity(CHUNK);
        Self { file, at, buffer }
    }

    /// The place of what comes next.
    fn end(&self) -> u64 {
        self.at + self.buffer.len() as u64
    }

    fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        match self.buffer.len() < CHUNK {
            true => Ok(()),
            false => self.write(),
        }
    }

    fn write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.buffer, self.at)?;
        self.at = self.end();
        self.buffer.clear();
        Ok(())
    }
}

fn descriptor(offset: u64, size: usize, flags: u32) -> [u8; DESCRIPTOR] {
    let mut bytes = [0; DESCRIPTOR];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..12].copy_from_slice(&(size as u32).to_le_bytes());
    bytes[12..16].copy_from_slice(&flags.to_le_bytes());
    bytes
}

fn header(about: &About<'_>, sub: usize, bitmaps: usize, pages: u64, end: u64) -> Vec<u8> {
    let mut header = vec![0; PAGE];
    header[..SIGNATURE.len()].copy_from_slice(SIGNATURE);
    header[VERSION_AT..][..4].copy_from_slice(&VERSION.to_le_bytes());
    // libkdumpfile takes the machine from it only if there is a system, a release and a
    // version, which VMCOREINFO does not have.
    let names: [&[u8]; 5] = [b"Linux", b"", about.release, b"unknown", b"x86_64"];
    for (place, name) in header[UTSNAME_AT..].chunks_mut(UTSNAME).zip(names) {
        let name = &name[..name.len().min(UTSNAME - 1)];
        place[..name.len()].copy_from_slice(name);
    }
    let written = u32::try_from(pages).unwrap_or(u32::MAX);
    let words = [
        ZLIB,
        PAGE as u32,
        (sub / PAGE) as u32,
        (bitmaps / PAGE) as u32,
        // Of which more than this is for the second header.
        u32::try_from(end).unwrap_or(u32::MAX),
        written,
        0,
        written,
        0,
        about.cpus,
    ];
    let words = words.iter().flat_map(|word| word.to_le_bytes());
    for (place, byte) in header[STATUS_AT..].iter_mut().zip(words) {
        *place = byte;
    }
    header
}

/// The second header with the notes, in whole blocks.
fn sub_header(about: &About<'_>, end: u64) -> Vec<u8> {
    let notes = BLOCK + SUB_HEADER as u64;
    let (text, len) = match about.vmcoreinfo.len() as u64 {
        0 => (0, 0),
        len => (notes + about.vmcoreinfo.start as u64, len),
    };
    let words = [
        about.phys_base,
        DUMP_LEVEL,
        // Page numbers of a part, up to version 5.
        0,
        0,
        text,
        len,
        notes,
        about.notes.len() as u64,
        // What was erased.
        0,
        0,
        // Page numbers of a part.
        0,
        0,
        end,
    ];
    let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    header.extend_from_slice(about.notes);
    header.resize(header.len().next_multiple_of(PAGE), 0);
    header
}

/// A bit for each page up to `end`, in whole blocks.
fn bitmap(regions: &[Range<u64>], end: u64) -> Vec<u8> {
    let len = end.div_ceil(8).next_multiple_of(BLOCK);
    let mut bits = vec![0; len as usize];
    for region in regions {
        for page in region.start / BLOCK..region.end / BLOCK {
            bits[(page / 8) as usize] |= 1 << (page % 8);
        }
    }
    bits
}

#[cfg(test)]
#[path = "kdump_test.rs"]
mod tests;
