//! The symbol table that a kernel carries (CONFIG_KALLSYMS), found in its image
//! without knowing where it is.
//!
//! Format: scripts/kallsyms.c and kernel/kallsyms.c of Linux. Names are
//! compressed: a name is a length (one byte, or two if bit 7 is set) and that
//! many token numbers; a token is a string of `kallsyms_token_table`. The first
//! character is the symbol's type as in nm(1). The tables are in one of these
//! layouts, and all aligned alike:
//!
//! | | aligned to | order |
//! |---|---|---|
//! | up to 4.5 | 8 | addresses of 8 bytes, num_syms, names, markers of 8 bytes, token_table, token_index |
//! | up to 4.19 | 8 | offsets, relative_base, num_syms, names, markers of 8 bytes, token_table, token_index |
//! | up to 6.3 | 8 | offsets, relative_base, num_syms, names, markers, (seqs_of_names,) token_table, token_index |
//! | from 6.4 on | 8 | num_syms, names, markers, token_table, token_index, offsets, relative_base, … |
//! | by 7.2 | 4 | the same without relative_base: each offset is from its own place |
//!
//! Offsets and, where nothing else is said, markers have 4 bytes. The first layout is
//! also that of later kernels without CONFIG_KALLSYMS_BASE_RELATIVE.
//!
//! The memory may hold anything: every length and number is checked, and the
//! search ends after [`MAX_STEPS`].

use super::image::AREA;
use super::symbols::{Kind, Symbols};

/// Most symbols of a kernel; Debian's has 160,000.
const MAX_SYMBOLS: usize = 1 << 20;
/// Fewer are no kernel's.
const MIN_SYMBOLS: usize = 64;
/// Most steps of the whole search: names looked at, and places where they might
/// begin.
const MAX_STEPS: usize = 1 << 25;
/// The cost, in steps, of a place that looks like a token table.
const TABLE_STEPS: usize = 256;
/// Longest name in characters, with room for longer ones than today's 511.
const MAX_NAME: usize = 2048;
/// `names` and `markers` before `token_table`, in bytes, at most.
const MAX_DISTANCE: usize = 48 << 20;
/// A marker is kept for every this many names.
const MARKER_STRIDE: usize = 256;
/// The possible alignments of tables, in bytes.
const ALIGNMENTS: [usize; 2] = [8, 4];

/// The digits of ASCII are tokens of themselves in every kernel, because its
/// symbols use them all.
const DIGITS: &[u8] = b"0\x001\x002\x003\x004\x005\x006\x007\x008\x009\0";
const FIRST_DIGIT: usize = b'0' as usize;

/// Finds the table in a part of the kernel's image that is mapped without a
/// hole, and returns its symbols at their run-time addresses.
///
/// `image` begins at a page, whose run-time address is `start`.
pub(crate) fn find(image: &[u8], start: u64) -> Option<Symbols> {
    let mut steps = MAX_STEPS;
    for digits in memchr::memmem::find_iter(image, DIGITS) {
        steps = steps.checked_sub(TABLE_STEPS)?;
        for align in ALIGNMENTS {
            let image = Image {
                bytes: image,
                start,
                align,
            };
            let tokens = Tokens::around(image, digits);
            let symbols = tokens.and_then(|tokens| tokens.find_symbols(&mut steps));
            if symbols.is_some() {
                return symbols;
            }
        }
    }
    None
}

/// Where the tables are looked for, and how they are to be aligned.
#[derive(Clone, Copy)]
struct Image<'a> {
    bytes: &'a [u8],
    /// Run-time address of the first byte.
    start: u64,
    align: usize,
}

/// `kallsyms_token_table` and `kallsyms_token_index`.
struct Tokens<'a> {
    image: Image<'a>,
    /// Where the table begins and the index ends, in `image`.
    table: usize,
    end: usize,
}

/// `kallsyms_names`, verified.
struct Names {
    /// Where `kallsyms_num_syms` is, in the image.
    at: usize,
    count: usize,
}

impl<'a> Tokens<'a> {
    /// The table whose tokens of the digits are at `digits`.
    fn around(image: Image<'a>, digits: usize) -> Option<Self> {
        let mut end = digits;
        for _ in FIRST_DIGIT..256 {
            end += memchr::memchr(0, image.bytes.get(end..)?.get(..MAX_NAME)?)? + 1;
        }
        let index = end.next_multiple_of(image.align);
        let before = usize::from(u16_at(image.bytes, index + 2 * FIRST_DIGIT)?);
        let tokens = Self {
            image,
            table: digits.checked_sub(before)?,
            end: index + 2 * 256,
        };
        let begins = |n: usize| {
            let at = tokens.table + usize::from(u16_at(image.bytes, index + 2 * n)?);
            Some(at < index && (n == 0 && at == tokens.table || n > 0 && image.bytes[at - 1] == 0))
        };
        (0..256).all(|n| begins(n) == Some(true)).then_some(tokens)
    }

    fn token(&self, n: u8) -> &'a [u8] {
        let index = self.end - 2 * 256;
        let offset = u16_at(self.image.bytes, index + 2 * usize::from(n)).unwrap_or_default();
        let rest = &self.image.bytes[self.table + usize::from(offset)..];
        let rest = &rest[..rest.len().min(MAX_NAME)];
        &rest[..memchr::memchr(0, rest).unwrap_or(0)]
    }

    fn find_symbols(&self, steps: &mut usize) -> Option<Symbols> {
        let lowest = self.table.saturating_sub(MAX_DISTANCE);
        // The nearer, the likelier.
        let align = self.image.align;
        let mut at = self.table & !(align - 1);
        while at >= lowest + align {
            at -= align;
            *steps = steps.checked_sub(1)?;
            if let Some(names) = self.names_at(at, steps)
                && let Some(symbols) = self.symbols(&names)
            {
                return Some(symbols);
            }
        }
        None
    }

    /// The names, if `kallsyms_num_syms` is at `at`: the markers behind the
    /// names must agree with them.
    fn names_at(&self, at: usize, steps: &mut usize) -> Option<Names> {
        let count = u32_at(self.image.bytes, at)? as usize;
        let start = at + self.image.align;
        let padding = self.image.bytes.get(at + 4..start)?;
        if !(MIN_SYMBOLS..=MAX_SYMBOLS).contains(&count) || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        let mut position = start;
        let mut markers = Vec::new();
        for n in 0..count {
            *steps = steps.checked_sub(1)?;
            if n % MARKER_STRIDE == 0 {
                markers.push(u32::try_from(position - start).ok()?);
            }
            let (tokens, next) = self.name(position)?;
            let kind = self.token(tokens[0]).first();
            if !kind.is_some_and(|kind| kind.is_ascii_alphabetic() || *kind == b'?') {
                return None;
            }
            position = next;
        }
        let place = position.next_multiple_of(self.image.align);
        self.agree(place, &markers).then_some(Names { at, count })
    }

    /// Whether the table at `place` has these markers, of either width.
    fn agree(&self, place: usize, markers: &[u32]) -> bool {
        let narrow = |(n, marker): (usize, &u32)| {
            u32_at(self.image.bytes, place + 4 * n).as_ref() == Some(marker)
        };
        let wide = |(n, marker): (usize, &u32)| {
            u64_at(self.image.bytes, place + 8 * n) == Some(u64::from(*marker))
        };
        markers.iter().enumerate().all(narrow) || markers.iter().enumerate().all(wide)
    }

    /// The token numbers of the name at `at`, at least one, and where the next
    /// name is. Names end before the token table.
    fn name(&self, at: usize) -> Option<(&'a [u8], usize)> {
        let first = usize::from(*self.image.bytes.get(at)?);
        let (len, start) = if first & 0x80 == 0 {
            (first, at + 1)
        } else {
            let second = usize::from(*self.image.bytes.get(at + 1)?);
            (first & 0x7f | second << 7, at + 2)
        };
        let end = start + len;
        if len == 0 || len > MAX_NAME || end > self.table {
            return None;
        }
        Some((&self.image.bytes[start..end], end))
    }

    /// The symbols with the addresses that make sense of them.
    fn symbols(&self, names: &Names) -> Option<Symbols> {
        let size = 4 * names.count;
        let align = self.image.align;
        let whole = || {
            let at = names.at.checked_sub(8 * names.count)?;
            whole_addresses(&self.image.bytes[at..names.at])
        };
        // Up to 6.3: before the names. Then: behind the token index.
        let before = names.at.checked_sub(8).and_then(|base| {
            let offsets = base.checked_sub(size.next_multiple_of(align))?;
            Some((offsets, base))
        });
        let behind = self.end.next_multiple_of(align);
        let with_base = [
            before,
            Some((behind, (behind + size).next_multiple_of(align))),
        ];
        let offsets = |at: usize| self.image.bytes.get(at..at + size);
        let addresses = with_base
            .into_iter()
            .flatten()
            .find_map(|(at, base)| addresses(offsets(at)?, u64_at(self.image.bytes, base)?))
            .or_else(|| {
                let place = self.image.start.wrapping_add(behind as u64);
                addresses_by_place(offsets(behind)?, place)
            })
            .or_else(whole)?;
        self.assemble(names, &addresses)
    }

    fn assemble(&self, names: &Names, addresses: &[u64]) -> Option<Symbols> {
        let mut symbols = Symbols::default();
        let mut position = names.at + self.image.align;
        let mut name = Vec::new();
        for &addr in addresses {
            let (tokens, next) = self.name(position)?;
            position = next;
            name.clear();
            for &token in tokens {
                name.extend_from_slice(self.token(token));
                name.truncate(MAX_NAME);
            }
            let (kind, name) = name.split_first()?;
            let kind = match kind {
                b't' | b'T' | b'w' | b'W' => Kind::Text,
                _ => Kind::Data,
            };
            symbols.push(name, addr, kind);
        }
        symbols.seal();
        Some(symbols)
    }
}

/// The addresses that 32-bit offsets stand for, if they come out sorted as they
/// are in every kernel. There are two encodings: unsigned, or, with
/// CONFIG_KALLSYMS_ABSOLUTE_PERCPU, absolute where positive and below the base
/// where negative.
fn addresses(offsets: &[u8], base: u64) -> Option<Vec<u64>> {
    if !AREA.contains(&base) {
        return None;
    }
    let decode = |decode: &dyn Fn(u32) -> u64| {
        let addresses: Vec<u64> = words(offsets).map(decode).collect();
        let inside = addresses.last().is_some_and(|last| *last >= base);
        (inside && addresses.is_sorted()).then_some(addresses)
    };
    let percpu = |offset: u32| match offset as i32 {
        absolute @ 0.. => absolute as u64,
        relative => base
            .wrapping_sub(1)
            .wrapping_sub(i64::from(relative) as u64),
    };
    decode(&percpu).or_else(|| decode(&|offset| base.wrapping_add(u64::from(offset))))
}

/// The addresses that signed offsets from their own places stand for, the first
/// of which is at `place`: sorted, and all in the kernel's area.
fn addresses_by_place(offsets: &[u8], place: u64) -> Option<Vec<u64>> {
    let places = (place..).step_by(4);
    let addresses: Vec<u64> = words(offsets)
        .zip(places)
        .map(|(offset, place)| place.wrapping_add_signed(i64::from(offset as i32)))
        .collect();
    let ends = [addresses.first()?, addresses.last()?];
    let inside = ends.iter().all(|addr| AREA.contains(addr));
    (inside && addresses.is_sorted()).then_some(addresses)
}

/// Addresses of 8 bytes each: sorted, and the last in the kernel's area or above it.
fn whole_addresses(bytes: &[u8]) -> Option<Vec<u64>> {
    let addresses: Vec<u64> = (0..bytes.len())
        .step_by(8)
        .map_while(|at| u64_at(bytes, at))
        .collect();
    let inside = addresses.last().is_some_and(|last| *last >= AREA.start);
    (inside && addresses.is_sorted()).then_some(addresses)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let words = bytes.chunks_exact(4);
    words.map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array(bytes, at)?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array(bytes, at)?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array(bytes, at)?))
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
#[path = "kallsyms_test.rs"]
mod tests;
