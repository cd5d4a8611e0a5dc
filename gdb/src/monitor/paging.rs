//! `monitor translate`, `pagewalk` and `pagetable`.

use host_io::errors::chain;

use super::args::{Output, Words, number, size, vcpu_and_address};
use super::error::MonitorError;
use crate::paging::{
    AddressSpace, Kind, Limits, Mode, Ranges, Rights, Row, Span, Step, Translation,
};
use crate::session::Session;
use crate::target::VirtAddr;

/// The limits of one `pagetable`. A Linux guest has some thousand tables and a
/// few hundred ranges.
const LIMITS: Limits = Limits {
    tables: 200_000,
    rows: 10_000,
};

/// The translation of a virtual address.
pub(super) fn translate(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let (vcpu, addr) = vcpu_and_address(session, arguments)?;
    match session.guest.machine.translate(vcpu, addr) {
        Ok(found) => writeln!(out, "{}", leads_to(addr, &found))?,
        Err(error) => {
            writeln!(out, "{:#x} is not mapped: {}", addr.0, chain(&error))?;
            if let Some((space, found)) = session.guest.translate_by_kernel(addr) {
                writeln!(out, "{}", of_kernel(&space))?;
                writeln!(out, "{}", leads_to(addr, &found))?;
            }
        }
    }
    Ok(())
}

/// [`translate`] in QEMU's words.
pub(super) fn gva2gpa(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let (vcpu, addr) = vcpu_and_address(session, arguments)?;
    let by_vcpu = session.guest.machine.translate(vcpu, addr).ok();
    match by_vcpu.or_else(|| Some(session.guest.translate_by_kernel(addr)?.1)) {
        Some(found) => writeln!(out, "gpa: {:#x}", found.phys.0)?,
        None => writeln!(out, "Unmapped")?,
    }
    Ok(())
}

/// Says that the following output is by other page tables than the vCPU's.
fn of_kernel(space: &AddressSpace) -> String {
    format!("the kernel's own page tables, at {:#x}:", space.root)
}

fn leads_to(addr: VirtAddr, found: &Translation) -> String {
    format!(
        "{:#x} is physical {:#x} ({} page, {})",
        addr.0,
        found.phys.0,
        size(found.page_size),
        rights(found.rights)
    )
}

fn rights(rights: Rights) -> String {
    let may = |granted, letter| if granted { letter } else { '-' };
    let who = if rights.user { "user" } else { "kernel" };
    let (write, execute) = (may(rights.write, 'w'), may(rights.execute, 'x'));
    format!("r{write}{execute} {who}")
}

/// Every entry on the way of a virtual address.
pub(super) fn pagewalk(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let (vcpu, addr) = vcpu_and_address(session, arguments)?;
    let space = session.guest.machine.address_space(vcpu)?;
    writeln!(out, "{vcpu}: {}, cr3 {:#x}", space.mode, space.root)?;
    if !write_walk(session, &space, addr, out)?
        && let Some((kernel, _)) = session.guest.translate_by_kernel(addr)
    {
        writeln!(out, "{}", of_kernel(&kernel))?;
        write_walk(session, &kernel, addr, out)?;
    }
    Ok(())
}

/// Writes the way of `addr` through these tables; whether it leads somewhere.
fn write_walk(
    session: &Session<'_>,
    space: &AddressSpace,
    addr: VirtAddr,
    out: Output<'_>,
) -> Result<bool, MonitorError> {
    let mut steps = Vec::new();
    let read = |at, buf: &mut [u8]| session.guest.machine.read_physical(at, buf);
    let result = space.walk(addr, read, |step| steps.push(step));
    for step in steps {
        let Step { index, entry, .. } = step;
        let name = format!("{}[{index}]", step.name());
        let leads = match step.kind(space) {
            Kind::NotPresent => "not present".to_owned(),
            Kind::Table => step.flags(space),
            Kind::Page(bytes) => format!("{} page: {}", size(bytes), step.flags(space)),
        };
        writeln!(out, "{name:<10} at {:#x}: {entry:#018x} {leads}", step.at.0)?;
    }
    match &result {
        Ok(found) => writeln!(out, "{}", leads_to(addr, found))?,
        Err(error) => writeln!(out, "{:#x} is not mapped: {}", addr.0, chain(error))?,
    }
    Ok(result.is_ok())
}

/// All mappings.
pub(super) fn pagetable(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let mut bound = |default| match words.optional() {
        Some(word) => number(session, vcpu, word),
        None => Ok(default),
    };
    let (first, last) = (bound(0)?, bound(u64::MAX)?);
    words.end()?;
    let space = session.guest.machine.address_space(vcpu)?;
    writeln!(out, "{vcpu}: {}, cr3 {:#x}", space.mode, space.root)?;
    if space.mode == Mode::Off {
        writeln!(out, "virtual addresses are physical ones")?;
        return Ok(());
    }
    let read = |at, buf: &mut [u8]| session.guest.machine.read_physical(at, buf);
    write_ranges(out, &space.ranges((first, last), LIMITS, read))
}

fn write_ranges(out: Output<'_>, ranges: &Ranges) -> Result<(), MonitorError> {
    for row in &ranges.rows {
        match row {
            Row::Span(span) => write_span(out, span)?,
            Row::Repeat { start, last, times } => {
                let each = size((last - start + 1) / times);
                let again = if *times == 1 {
                    "once"
                } else {
                    &format!("{times} times")
                };
                writeln!(
                    out,
                    "{start:#018x}-{last:#018x} the {each} before, {again} more"
                )?;
            }
        }
    }
    if ranges.rows.is_empty() {
        writeln!(out, "nothing is mapped there")?;
    }
    for (count, what) in [
        (ranges.unreadable, "tables are not in RAM"),
        (ranges.reserved, "entries have reserved bits set"),
    ] {
        if count != 0 {
            writeln!(out, "left out: {count} {what}")?;
        }
    }
    if let Some(at) = ranges.stopped_at {
        writeln!(
            out,
            "too much to show; continue with: monitor pagetable {at:#x}"
        )?;
    }
    Ok(())
}

fn write_span(out: Output<'_>, span: &Span) -> Result<(), MonitorError> {
    // A whole address space is one too many for 64 bits.
    let bytes = (span.last - span.start).saturating_add(1);
    let global = if span.global { " global" } else { "" };
    writeln!(
        out,
        "{:#018x}-{:#018x} {:>10} {}{global}, {} pages",
        span.start,
        span.last,
        size(bytes),
        rights(span.rights),
        size(span.page_size)
    )?;
    Ok(())
}

#[cfg(test)]
#[path = "paging_test.rs"]
mod tests;
