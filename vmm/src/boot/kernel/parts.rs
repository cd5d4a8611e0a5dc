//! Which parts of a kernel file are loaded. The rest, debugging information above all,
//! can be many times as large.

use std::fs::File;
use std::io;
use std::ops::Range;

use super::bzimage;
use super::elf::ELFCLASS32;
use super::fields::{u16_at, u32_at, u64_at};
use crate::boot::kept::read_at;

const ELF_PROGRAM_HEADER_LEN: u64 = 56;
pub(super) const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Everything that the boot reads. Whether the file is good is judged later.
pub fn needed(file: &File) -> io::Result<Vec<Range<u64>>> {
    let head = read_at(file, 0, bzimage::SETUP_HEADER_END as usize)?;
    let head_part = 0..head.len() as u64;
    if !head.starts_with(b"\x7fELF") {
        return Ok(vec![head_part, bzimage::loaded(&head)]);
    }
    let mut parts = vec![head_part];
    let is_32_bit = head.get(4) == Some(&ELFCLASS32);
    // Offset, number and size of the program headers (ELF-64 Object File Format, 3 and 7).
    let (offset, count, size) = if is_32_bit {
        (u64::from(u32_at(&head, 28)), u16_at(&head, 44), 32)
    } else {
        (u64_at(&head, 32), u16_at(&head, 56), ELF_PROGRAM_HEADER_LEN)
    };
    let table_len = u64::from(count) * size;
    parts.push(offset..offset.saturating_add(table_len));
    let table = read_at(file, offset, table_len as usize)?;
    for segment in table.chunks_exact(size as usize) {
        let (start, len) = if is_32_bit {
            let field = |at| u64::from(u32_at(segment, at));
            (field(4), field(16))
        } else {
            (u64_at(segment, 8), u64_at(segment, 32))
        };
        if matches!(u32_at(segment, 0), PT_LOAD | PT_NOTE) {
            parts.push(start..start.saturating_add(len));
        }
    }
    Ok(parts)
}
