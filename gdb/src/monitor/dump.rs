//! `monitor dump`: a crash dump.

use std::path::Path;

use super::args::Output;
use super::error::MonitorError;
use crate::inspect::DumpFormat;
use crate::session::Session;

/// Dumps RAM and registers, without what is planted in RAM.
pub(super) fn dump(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let (format, file) = match arguments.split_once(' ') {
        Some(("-z", file)) => (DumpFormat::Kdump, file),
        _ => (DumpFormat::Elf, arguments),
    };
    if matches!(file, "" | "-z") {
        return Err(MonitorError::Missing("a file"));
    }
    let guest = &mut session.guest;
    let planted = &guest.breakpoints.planted;
    let hide = |at, bytes: &mut [u8]| planted.hide(at, bytes);
    let inspect = guest.machine.inspect();
    let dumped = inspect.dump(Path::new(file), format, &hide)?;
    writeln!(out, "{file}: {dumped}")?;
    Ok(())
}
