//! Physical memory as QEMU's monitor shows it with `xp`.

use std::fmt::{self, Write};

use super::format::Format;
use crate::address::PhysAddr;

/// Most bytes that are shown at once.
const MOST: u64 = 1 << 20;
/// Bytes in a line, for units of a byte and for larger ones.
const LINE_OF_BYTES: usize = 8;
const LINE: usize = 16;

/// Memory in hexadecimal, up to where `read` finds none. `format` is what stands behind the
/// slash.
pub fn write_memory(
    out: &mut dyn Write,
    format: &str,
    addr: PhysAddr,
    read: impl Fn(PhysAddr, &mut [u8]) -> bool,
) -> fmt::Result {
    let Some(parsed) = Format::parse(format) else {
        return writeln!(
            out,
            "invalid format '/{format}': only x with b, h, w or g is known"
        );
    };
    let Some(len) = parsed.len(MOST) else {
        return writeln!(out, "at most {MOST} bytes are shown at once");
    };
    let unit = parsed.unit();
    let line = if unit == 1 { LINE_OF_BYTES } else { LINE };
    let mut buffer = [0; LINE];
    for begin in (0..len).step_by(line) {
        let piece = &mut buffer[..line.min(len - begin)];
        let at = PhysAddr(addr.0.saturating_add(begin as u64));
        write!(out, "{:016x}:", at.0)?;
        if !read(at, piece) {
            return writeln!(out, " Cannot access memory");
        }
        for unit in piece.chunks(unit) {
            out.write_str(" 0x")?;
            for byte in unit.iter().rev() {
                write!(out, "{byte:02x}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(format: &str, addr: u64) -> String {
        let mut text = String::new();
        // Each byte is the end of its address, and there are 32.
        let read = |at: PhysAddr, bytes: &mut [u8]| {
            for (n, byte) in (0..).zip(bytes.iter_mut()) {
                *byte = (at.0 as u8).wrapping_add(n);
            }
            at.0.saturating_add(bytes.len() as u64) <= 32
        };
        write_memory(&mut text, format, PhysAddr(addr), read).unwrap();
        text
    }

    #[test]
    fn lines_have_eight_bytes_or_sixteen() {
        assert_eq!(shown("", 4), "0000000000000004: 0x07060504\n");
        assert_eq!(
            shown("9xb", 0),
            "0000000000000000: 0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07\n\
             0000000000000008: 0x08\n"
        );
        assert_eq!(
            shown("3g", 8),
            "0000000000000008: 0x0f0e0d0c0b0a0908 0x1716151413121110\n\
             0000000000000018: 0x1f1e1d1c1b1a1918\n"
        );
        assert_eq!(shown("0x", 0), "");
    }

    #[test]
    fn what_is_no_memory_ends_the_output() {
        assert_eq!(
            shown("8x", 16),
            "0000000000000010: 0x13121110 0x17161514 0x1b1a1918 0x1f1e1d1c\n\
             0000000000000020: Cannot access memory\n"
        );
        let last = shown("4g", u64::MAX - 7);
        assert!(last.ends_with(": Cannot access memory\n"), "{last}");
        assert!(shown("4i", 0).starts_with("invalid format '/4i'"));
        assert!(shown("131073g", 0).starts_with("at most 1048576 bytes"));
    }
}
