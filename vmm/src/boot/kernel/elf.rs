//! ELF kernels, of 32 and of 64 bits.
//!
//! PVH's note gives a kernel's entry point. A 64-bit one without it is entered at its
//! ELF entry, as Linux is. A 32-bit one cannot be: its ELF entry is a virtual address
//! with Linux, and belongs to any protocol with other kernels.

use devices::virtio::GuestMemory;
use object::LittleEndian;
use object::elf::{FileHeader32, FileHeader64, NoteType, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use vm_memory::{Bytes, GuestAddress};

use super::error::Error;
use super::fields::u16_at;
use super::image::{Image, Kernel};
use crate::boot::entry::Entry;
use crate::boot::ram_reader::RamReader;

const ENDIAN: LittleEndian = LittleEndian;

/// The part of an ELF header that tells the kinds of files apart: up to `e_machine`.
const ELF_KIND_LEN: u64 = 20;
pub(super) const ELFCLASS32: u8 = 1;
pub(super) const ELFCLASS64: u8 = 2;
const EM_386: u16 = 3;
pub(super) const EM_X86_64: u16 = 62;

/// Xen's notes (xen/include/public/elfnote.h): the owner, and the type of the one
/// with the physical address to enter in 32-bit protected mode without paging.
const XEN: &[u8] = b"Xen";
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

/// A file header of either class.
trait Header: FileHeader<Endian = LittleEndian> {
    /// Where a kernel without PVH's note is entered.
    fn entry_without_note(&self) -> Option<Entry>;
}

impl Header for FileHeader32<LittleEndian> {
    fn entry_without_note(&self) -> Option<Entry> {
        None
    }
}

impl Header for FileHeader64<LittleEndian> {
    fn entry_without_note(&self) -> Option<Entry> {
        let rip = self.e_entry(ENDIAN);
        Some(Entry::Linux64 { rip })
    }
}

impl Image<'_> {
    pub(super) fn load_elf(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        let kind = self.bytes(0, ELF_KIND_LEN)?;
        let (class, machine) = (kind[4], u16_at(&kind, 18));
        match (class, machine) {
            (ELFCLASS64, EM_X86_64) => self.load_elf64(memory),
            (ELFCLASS32, EM_386) => self.load_elf32(memory),
            _ => {
                let bits = if class == ELFCLASS64 { 64 } else { 32 };
                Err(Error::WrongMachine {
                    path: self.path().to_owned(),
                    machine: format!("{} ({bits}-bit)", elf_machine_name(machine)),
                })
            }
        }
    }

    fn load_elf32(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        self.load_segments::<FileHeader32<LittleEndian>>(memory)
    }

    fn load_elf64(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        self.load_segments::<FileHeader64<LittleEndian>>(memory)
    }

    /// Loads the segments to their physical addresses.
    fn load_segments<H: Header>(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        let file = self.file().try_clone();
        let cache = ReadCache::new(file.map_err(|source| self.unreadable(source))?);
        let (header, segments) = self.headers::<H>(&cache)?;
        let mut end = 0;
        for segment in segments.iter().filter(|segment| is_loaded(*segment)) {
            let (addr, size) = (
                segment.p_paddr(ENDIAN).into(),
                segment.p_memsz(ENDIAN).into(),
            );
            let (offset, filesz) = segment.file_range(ENDIAN);
            self.check_segment(offset, filesz, addr, size)?;
            end = end.max(addr + size.max(filesz));
        }
        if end == 0 {
            return Err(self.nothing_to_load());
        }
        let entry = match self.pvh_entry(segments, &cache)? {
            Some(rip) => Some(Entry::Pvh { rip }),
            None => header.entry_without_note(),
        };
        let entry = entry.ok_or_else(|| Error::NoEntry {
            path: self.path().to_owned(),
        })?;
        for segment in segments.iter().filter(|segment| is_loaded(*segment)) {
            self.load_segment(memory, segment)?;
        }
        Ok(Kernel {
            entry,
            end,
            initrd_max: u64::from(u32::MAX),
            setup_header: None,
        })
    }

    /// The file's header and its program headers.
    fn headers<'a, H: Header>(
        &self,
        data: impl ReadRef<'a>,
    ) -> Result<(&'a H, &'a [H::ProgramHeader]), Error> {
        self.require_len(size_of::<H>() as u64)?;
        let header = H::parse(data).map_err(|error| self.malformed(error))?;
        let len = u64::from(header.e_phnum(ENDIAN)) * size_of::<H::ProgramHeader>() as u64;
        self.require_len(header.e_phoff(ENDIAN).into().saturating_add(len))?;
        let segments = header.program_headers(ENDIAN, data);
        Ok((header, segments.map_err(|error| self.malformed(error))?))
    }

    /// The kernel's entry point by its note, if there is one.
    fn pvh_entry<'a, S: ProgramHeader<Endian = LittleEndian>>(
        &self,
        segments: &[S],
        data: impl ReadRef<'a>,
    ) -> Result<Option<u64>, Error> {
        for segment in segments {
            let notes = segment
                .notes(ENDIAN, data)
                .map_err(|error| self.malformed(error))?;
            let Some(mut notes) = notes else {
                continue;
            };
            while let Some(note) = notes.next().map_err(|error| self.malformed(error))? {
                if note.name() == XEN && note.n_type(ENDIAN) == XEN_ELFNOTE_PHYS32_ENTRY {
                    return self.checked_entry(note.desc(), segments).map(Some);
                }
            }
        }
        Ok(None)
    }

    /// The note's address, which has 8 bytes in some kernels, if something is there.
    fn checked_entry<S: ProgramHeader<Endian = LittleEndian>>(
        &self,
        note: &[u8],
        segments: &[S],
    ) -> Result<u64, Error> {
        let Some(entry) = note.first_chunk() else {
            return Err(self.malformed("its PVH note is too short for an address"));
        };
        let entry = u64::from(u32::from_le_bytes(*entry));
        let holds = |segment: &&S| {
            let within = entry.checked_sub(segment.p_paddr(ENDIAN).into());
            is_loaded(*segment) && within.is_some_and(|at| at < segment.p_memsz(ENDIAN).into())
        };
        match segments.iter().find(holds) {
            Some(_) => Ok(entry),
            None => Err(self.malformed(format!("its PVH entry {entry:#x} is in no segment"))),
        }
    }

    /// Copies a segment's bytes in the file and clears the rest of it: RAM is not
    /// empty after a reset.
    fn load_segment(
        &mut self,
        memory: &GuestMemory,
        segment: &impl ProgramHeader<Endian = LittleEndian>,
    ) -> Result<(), Error> {
        let (offset, filesz) = segment.file_range(ENDIAN);
        let start = segment.p_paddr(ENDIAN).into();
        self.seek(offset)?;
        let mut reader = RamReader::new(self.file(), memory);
        memory
            .read_exact_volatile_from(GuestAddress(start), &mut reader, filesz as usize)
            .map_err(|error| self.malformed(error))?;
        let size = filesz.max(segment.p_memsz(ENDIAN).into());
        self.clear(memory, start + filesz..start + size)
    }
}

fn is_loaded(segment: &impl ProgramHeader<Endian = LittleEndian>) -> bool {
    segment.p_type(ENDIAN) == PT_LOAD && segment.p_memsz(ENDIAN).into() != 0
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
#[path = "elf_test.rs"]
mod tests;
