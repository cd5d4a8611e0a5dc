//! `monitor written`: the pages that the process behind a device writes.

use std::ops::Range;

use super::args::{Output, Words};
use super::devices::find;
use super::error::MonitorError;
use crate::session::Session;

const PAGE: u64 = 4096;

/// Has the pages noted, or no longer, or shows those since the last look.
pub(super) fn written(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let name = words.need("a device, by name or number,")?;
    let wanted = words.on_off()?;
    let (number, device) = find(session.guest.machine.inspect().devices()?, name)?;
    let Some(wanted) = wanted else {
        return show(session, number, &device.id, out);
    };
    let machine = &mut session.guest.machine;
    session.devices.set_dirty_log(machine, number, wanted)?;
    match wanted {
        true => writeln!(out, "{}: pages that it writes are noted", device.id)?,
        false => writeln!(out, "{}: pages that it writes are not noted", device.id)?,
    }
    Ok(())
}

fn show(
    session: &mut Session<'_>,
    number: usize,
    id: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let Some(runs) = session.guest.machine.inspect().dirty_pages(number)? else {
        writeln!(
            out,
            "{id}: pages that it writes are not noted; \"monitor written {id} on\" begins"
        )?;
        return Ok(());
    };
    let pages: u64 = runs.iter().map(count).sum();
    writeln!(out, "{id}: {pages} pages written since the last look")?;
    for run in &runs {
        let last = run.end - 1;
        writeln!(out, "{:#018x}-{last:#018x} {:>6}", run.start, count(run))?;
    }
    Ok(())
}

fn count(run: &Range<u64>) -> u64 {
    (run.end - run.start) / PAGE
}
