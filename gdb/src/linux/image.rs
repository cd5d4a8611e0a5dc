//! Where the kernel's image is mapped.
//!
//! x86-64 Linux maps its image from the first page of `_text` on, somewhere in
//! the GiB at 0xffffffff80000000 (Documentation/arch/x86/x86_64/mm.rst), and
//! maps nothing below the image there. KASLR chooses the place, in steps of 2
//! MiB.

use super::memory::Memory;
use crate::paging::WalkError;

/// The address range that the kernel's image may take.
pub(crate) const AREA: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;

/// Whether the kernel's image may be there.
pub(crate) fn is_in_image_area(addr: u64) -> bool {
    AREA.contains(&addr)
}

const PAGE: u64 = 0x1000;

/// Most bytes of an image: several times those of a kernel with everything in it.
const MAX_BYTES: u64 = 256 << 20;

/// Mapped addresses without a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub start: u64,
    pub len: u64,
}

/// The mapped parts of [`AREA`], in order, up to [`MAX_BYTES`].
pub(crate) fn ranges(memory: &Memory<'_>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut total = 0;
    let mut at = AREA.start;
    while at < AREA.end && total < MAX_BYTES {
        let (mapped, size) = match memory.translate(at) {
            Ok(place) => (true, place.page_size),
            Err(WalkError::NotPresent { level } | WalkError::Reserved { level, .. }) => {
                (false, hole(level))
            }
            // A table beyond RAM: no kernel uses it.
            Err(WalkError::Unreadable { level, .. }) => (false, hole(level + 1)),
            // Not in 64-bit mode.
            Err(_) => return ranges,
        };
        let next = (at & !(size - 1)).saturating_add(size).min(AREA.end);
        let next = if next <= at { AREA.end } else { next };
        if mapped {
            total += next - at;
            match ranges.last_mut() {
                Some(last) if last.start + last.len == at => last.len += next - at,
                _ => ranges.push(Range {
                    start: at,
                    len: next - at,
                }),
            }
        }
        at = next;
    }
    ranges
}

/// The size that an absent entry of this level leaves out, in bytes.
fn hole(level: u8) -> u64 {
    PAGE << (9 * u32::from(level.clamp(1, 5) - 1))
}
