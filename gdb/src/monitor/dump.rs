//! `monitor dump`: a crash dump.

use std::path::Path;

use super::args::Output;
use super::error::MonitorError;
use crate::session::Session;

/// Dumps RAM and registers, without what is planted in RAM.
pub(super) fn dump(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    if arguments.is_empty() {
        return Err(MonitorError::Missing("a file"));
    }
    let guest = &mut session.guest;
    let planted = &guest.breakpoints.planted;
    let hide = |at, bytes: &mut [u8]| planted.hide(at, bytes);
    let dumped = guest.machine.inspect().dump(Path::new(arguments), &hide)?;
    writeln!(out, "{arguments}: {dumped}")?;
    Ok(())
}
