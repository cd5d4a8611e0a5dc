//! `monitor xp` and `phys`: physical memory.

use super::args::{Output, Words, number};
use super::error::MonitorError;
use crate::hmp::Format;
use crate::session::Session;
use crate::target::PhysAddr;

/// Most bytes that one `xp` shows.
const MOST: u64 = 64 << 10;
const LINE: usize = 16;

/// Shows physical memory in hexadecimal.
pub(super) fn xp(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let format = words.slash().unwrap_or_default();
    let wrong = || MonitorError::Format(format.to_owned());
    let format = Format::parse(format).ok_or_else(wrong)?;
    let len = format.len(MOST).filter(|len| *len > 0);
    let start = number(session, vcpu, words.need("a physical address")?)?;
    words.end()?;
    let mut left = len.ok_or(MonitorError::TooMuch { most: MOST })?;
    let mut addr = start;
    while left > 0 {
        let mut line = [0; LINE];
        let line = &mut line[..left.min(LINE)];
        let found = session.guest.read_physical_hidden(PhysAddr(addr), line);
        let shown = &line[..found - found % format.unit()];
        if !shown.is_empty() {
            write!(out, "{addr:#x}:")?;
            for unit in shown.chunks_exact(format.unit()) {
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
