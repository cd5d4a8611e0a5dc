//! `monitor xp` and `phys`: physical memory.

use super::args::{Output, Words, number};
use super::error::MonitorError;
use crate::session::Session;
use crate::target::PhysAddr;

/// Most bytes that one `xp` shows.
const MOST: u64 = 64 << 10;
const LINE: usize = 16;

/// How `xp` shows memory: this many units of this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Format {
    count: u64,
    unit: usize,
}

/// Shows physical memory in hexadecimal.
pub(super) fn xp(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let format = format(words.slash().unwrap_or_default())?;
    let start = number(session, vcpu, words.need("a physical address")?)?;
    words.end()?;
    let mut left = (format.count * format.unit as u64) as usize;
    let mut addr = start;
    while left > 0 {
        let mut line = [0; LINE];
        let line = &mut line[..left.min(LINE)];
        let found = session.guest.read_physical_hidden(PhysAddr(addr), line);
        let shown = &line[..found - found % format.unit];
        if !shown.is_empty() {
            write!(out, "{addr:#x}:")?;
            for unit in shown.chunks_exact(format.unit) {
                write!(out, " 0x")?;
                for byte in unit.iter().rev() {
                    write!(out, "{byte:02x}")?;
                }
            }
            writeln!(out)?;
        }
        if shown.len() < line.len() {
            let end = addr.saturating_add(found as u64);
            writeln!(out, "{end:#x}: no RAM at this physical address")?;
            return Ok(());
        }
        left -= line.len();
        // Never beyond the last address: no RAM is there.
        addr = addr.saturating_add(LINE as u64);
    }
    Ok(())
}

/// `[COUNT][SIZE]`, where a letter x for hexadecimal may stand among them.
fn format(text: &str) -> Result<Format, MonitorError> {
    let wrong = || MonitorError::Format(text.to_owned());
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (count, letters) = text.split_at(digits);
    let count = match count {
        "" => 1,
        count => count.parse().map_err(|_| wrong())?,
    };
    let mut unit = 4;
    for letter in letters.chars() {
        unit = match letter {
            'b' => 1,
            'h' => 2,
            'w' => 4,
            'g' => 8,
            'x' => unit,
            _ => return Err(wrong()),
        };
    }
    if count == 0 || count > MOST / unit as u64 {
        return Err(MonitorError::TooMuch { most: MOST });
    }
    Ok(Format { count, unit })
}

/// The memory that gdb's own commands access.
pub(super) fn phys(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    if let Some(wanted) = Words::new(arguments).on_off()? {
        session.selection.set_physical(wanted);
    }
    if session.selection.is_physical() {
        writeln!(
            out,
            "gdb's memory accesses are physical until the guest resumes or \"monitor phys off\""
        )?;
    } else {
        writeln!(out, "gdb's memory accesses are virtual")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_gdb() {
        let parse = |text| format(text).ok().map(|format| (format.count, format.unit));
        assert_eq!(parse(""), Some((1, 4)));
        assert_eq!(parse("16"), Some((16, 4)));
        assert_eq!(parse("8xg"), Some((8, 8)));
        assert_eq!(parse("bx"), Some((1, 1)));
        assert_eq!(parse("65536b"), Some((65536, 1)));
        for text in ["0", "65537b", "s", "4i", "-1", "99999999999999999999"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
