//! The headers of an ELF core file.

use std::mem::size_of;

use object::elf::{
    ELFCLASS64, ELFDATA2LSB, ELFMAG, ELFOSABI_NONE, EM_X86_64, ET_CORE, EV_CURRENT, FileFlags,
    FileHeader64, Ident, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, ProgramFlags, ProgramHeader64,
    SHN_UNDEF,
};
use object::endian::{LittleEndian as LE, U16, U32, U64};
use object::pod::bytes_of;

type FileHeader = FileHeader64<LE>;
type ProgramHeader = ProgramHeader64<LE>;

/// RAM begins at a page of the file, so that a reader can map it.
pub const ALIGN: usize = 4096;

/// Guest RAM, or a part of it at another virtual address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub virt: u64,
    pub phys: u64,
    pub len: u64,
    /// Where it is in the file, from the beginning of all RAM there.
    pub offset: u64,
}

impl Segment {
    /// Whether it has this physical address at this virtual one.
    pub fn maps(&self, virt: u64, phys: u64) -> bool {
        let offset = virt.wrapping_sub(self.virt);
        offset < self.len && phys.wrapping_sub(self.phys) == offset
    }
}

/// The headers of a file with notes right behind them, and behind those, from the next
/// multiple of [`ALIGN`] on, RAM.
pub fn headers(notes_len: u64, segments: &[Segment]) -> Vec<u8> {
    let count = 1 + segments.len();
    let len = (size_of::<FileHeader>() + count * size_of::<ProgramHeader>()) as u64;
    let ram = (len + notes_len).next_multiple_of(ALIGN as u64);
    let mut bytes = bytes_of(&file_header(count)).to_vec();
    let notes = ProgramHeader {
        p_type: U32::new(LE, PT_NOTE),
        p_flags: U32::new(LE, ProgramFlags(0)),
        p_offset: U64::new(LE, len),
        p_vaddr: U64::new(LE, 0),
        p_paddr: U64::new(LE, 0),
        p_filesz: U64::new(LE, notes_len),
        p_memsz: U64::new(LE, notes_len),
        p_align: U64::new(LE, 0),
    };
    bytes.extend_from_slice(bytes_of(&notes));
    for segment in segments {
        bytes.extend_from_slice(bytes_of(&load(segment, ram)));
    }
    bytes
}

fn file_header(segments: usize) -> FileHeader {
    FileHeader {
        e_ident: Ident {
            magic: ELFMAG,
            class: ELFCLASS64,
            data: ELFDATA2LSB,
            version: EV_CURRENT,
            os_abi: ELFOSABI_NONE,
            abi_version: 0,
            padding: [0; 7],
        },
        e_type: U16::new(LE, ET_CORE),
        e_machine: U16::new(LE, EM_X86_64),
        e_version: U32::new(LE, u32::from(EV_CURRENT.0)),
        e_entry: U64::new(LE, 0),
        e_phoff: U64::new(LE, size_of::<FileHeader>() as u64),
        e_shoff: U64::new(LE, 0),
        e_flags: U32::new(LE, FileFlags(0)),
        e_ehsize: U16::new(LE, size_of::<FileHeader>() as u16),
        e_phentsize: U16::new(LE, size_of::<ProgramHeader>() as u16),
        // Two regions of RAM, the image, and at most 48 pages of stacks for each of 64 vCPUs.
        e_phnum: U16::new(LE, segments as u16),
        e_shentsize: U16::new(LE, 0),
        e_shnum: U16::new(LE, 0),
        e_shstrndx: U16::new(LE, SHN_UNDEF),
    }
}

fn load(segment: &Segment, ram: u64) -> ProgramHeader {
    ProgramHeader {
        p_type: U32::new(LE, PT_LOAD),
        p_flags: U32::new(LE, PF_R | PF_W | PF_X),
        p_offset: U64::new(LE, ram + segment.offset),
        p_vaddr: U64::new(LE, segment.virt),
        p_paddr: U64::new(LE, segment.phys),
        p_filesz: U64::new(LE, segment.len),
        p_memsz: U64::new(LE, segment.len),
        p_align: U64::new(LE, 0),
    }
}
