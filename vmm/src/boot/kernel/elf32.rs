//! 32-bit ELF kernels, which `linux-loader` does not take.
//!
//! Nothing but PVH's note says how such a kernel is to be entered: its ELF entry is
//! a virtual address under Linux, and any protocol's with others.

use devices::virtio::GuestMemory;
use object::LittleEndian;
use object::elf::{FileHeader32, NoteType, PT_LOAD, ProgramHeader32};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};
use vm_memory::{Bytes, GuestAddress};

use super::{Error, Image, Kernel};
use crate::boot::Entry;
use crate::boot::ram_reader::RamReader;

type Header = FileHeader32<LittleEndian>;
type Segment = ProgramHeader32<LittleEndian>;

const ENDIAN: LittleEndian = LittleEndian;

const HEADER_LEN: u64 = 52;
const SEGMENT_LEN: u64 = 32;

/// Xen's notes (xen/include/public/elfnote.h): the owner, and the type of the one
/// with the physical address to enter in 32-bit protected mode without paging.
const XEN: &[u8] = b"Xen";
const XEN_ELFNOTE_PHYS32_ENTRY: NoteType = NoteType(18);

impl Image<'_> {
    /// Loads the segments to their physical addresses.
    pub(super) fn load_elf32(&mut self, memory: &GuestMemory) -> Result<Kernel, Error> {
        let file = self.file.try_clone();
        let cache = ReadCache::new(file.map_err(|source| self.unreadable(source))?);
        let segments = self.segments32(&cache)?;
        let mut end = 0;
        for segment in segments.iter().filter(|segment| is_loaded(segment)) {
            let (addr, size) = (address(segment), segment.p_memsz(ENDIAN).into());
            let (offset, filesz) = segment.file_range(ENDIAN);
            self.check_segment(offset, filesz, addr, size)?;
            end = end.max(addr + size.max(filesz));
        }
        if end == 0 {
            return Err(self.nothing_to_load());
        }
        let entry = self.pvh_entry(segments, &cache)?;
        for segment in segments.iter().filter(|segment| is_loaded(segment)) {
            self.load_segment(memory, segment)?;
        }
        Ok(Kernel {
            entry: Entry::Pvh { rip: entry },
            end,
            initrd_max: u64::from(u32::MAX),
            setup_header: None,
        })
    }

    fn segments32<'a>(&self, data: impl ReadRef<'a>) -> Result<&'a [Segment], Error> {
        self.require_len(HEADER_LEN)?;
        let header = Header::parse(data).map_err(|error| self.malformed(error))?;
        let count = u64::from(header.e_phnum(ENDIAN));
        self.require_len(u64::from(header.e_phoff(ENDIAN)) + count * SEGMENT_LEN)?;
        header
            .program_headers(ENDIAN, data)
            .map_err(|error| self.malformed(error))
    }

    /// Where the note says that the kernel is entered.
    fn pvh_entry<'a>(&self, segments: &[Segment], data: impl ReadRef<'a>) -> Result<u64, Error> {
        for segment in segments {
            let notes = segment
                .notes(ENDIAN, data)
                .map_err(|error| self.malformed(error))?;
            let Some(mut notes) = notes else {
                continue;
            };
            while let Some(note) = notes.next().map_err(|error| self.malformed(error))? {
                if note.name() == XEN && note.n_type(ENDIAN) == XEN_ELFNOTE_PHYS32_ENTRY {
                    return self.checked_entry(note.desc(), segments);
                }
            }
        }
        Err(Error::NoEntry {
            path: self.path.to_owned(),
        })
    }

    /// The note's address, which has 8 bytes in some kernels, if something is there.
    fn checked_entry(&self, note: &[u8], segments: &[Segment]) -> Result<u64, Error> {
        let Some(entry) = note.first_chunk() else {
            return Err(self.malformed("its PVH note is too short for an address"));
        };
        let entry = u64::from(u32::from_le_bytes(*entry));
        let holds = |segment: &&Segment| {
            let within = entry.checked_sub(address(segment));
            is_loaded(segment) && within.is_some_and(|at| at < segment.p_memsz(ENDIAN).into())
        };
        match segments.iter().find(holds) {
            Some(_) => Ok(entry),
            None => Err(self.malformed(format!("its PVH entry {entry:#x} is in no segment"))),
        }
    }

    /// Copies what the file has of a segment and clears the rest of it: RAM is not
    /// empty after a reset.
    fn load_segment(&mut self, memory: &GuestMemory, segment: &Segment) -> Result<(), Error> {
        let (offset, filesz) = segment.file_range(ENDIAN);
        let start = address(segment);
        self.seek(offset)?;
        let mut reader = RamReader::new(&mut self.file, memory);
        memory
            .read_exact_volatile_from(GuestAddress(start), &mut reader, filesz as usize)
            .map_err(|error| self.malformed(error))?;
        let end = start + u64::from(segment.p_memsz(ENDIAN));
        self.clear(memory, start + filesz..end)
    }
}

fn is_loaded(segment: &Segment) -> bool {
    segment.p_type(ENDIAN) == PT_LOAD && segment.p_memsz(ENDIAN) != 0
}

fn address(segment: &Segment) -> u64 {
    segment.p_paddr(ENDIAN).into()
}

#[cfg(test)]
#[path = "elf32_test.rs"]
mod tests;
