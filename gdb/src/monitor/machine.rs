//! `monitor info mtree|exits`, `exits`, `msr`, `nmi`, `reset` and `mmio read`.

use host_io::errors::chain;

use super::args::{Output, Words, no_argument, number, plain_number, size};
use super::error::MonitorError;
use crate::arch::msr;
use crate::inspect::Window;
use crate::session::Session;
use crate::target::{PhysAddr, VcpuId};

/// Lines of `exits` where nobody says how many.
const SOME_EXITS: u64 = 16;

/// The guest-physical map with its holes, then the ports. It is flat: QEMU's `-f`
/// changes nothing.
pub(super) fn mtree(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument(
        "info mtree",
        arguments.strip_prefix("-f").unwrap_or(arguments),
    )?;
    let mut windows = session.guest.machine.inspect().windows()?;
    windows.sort_by_key(|window| window.start);
    let mut next = 0;
    for Window {
        start, len, what, ..
    } in windows
    {
        if next < start.0 {
            write_window(out, next, start.0 - next, "hole")?;
        }
        write_window(out, start.0, len, &what)?;
        next = start.0.saturating_add(len);
    }
    let mut ports = session.guest.machine.inspect().ports()?;
    ports.sort_by_key(|window| window.start);
    for Window {
        start, len, what, ..
    } in ports
    {
        let last = start.0 + (len - 1);
        writeln!(out, "ports {:#x}-{last:#x}: {what}", start.0)?;
    }
    Ok(())
}

fn write_window(out: Output<'_>, start: u64, len: u64, what: &str) -> Result<(), MonitorError> {
    let last = start.saturating_add(len - 1);
    writeln!(out, "{start:#018x}-{last:#018x} {:>10} {what}", size(len))?;
    Ok(())
}

/// How often each vCPU has left the guest.
pub(super) fn exit_counters(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info exits", arguments)?;
    for vcpu in session.guest.machine.vcpus() {
        let counters = session.guest.machine.inspect().exits(vcpu)?;
        let counted: Vec<_> = counters
            .iter()
            .filter(|(_, count)| *count != 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        writeln!(out, "{vcpu}: {}", counted.join(", "))?;
    }
    Ok(())
}

/// The last exits, with where and when.
pub(super) fn recent_exits(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let count = words.optional().map_or(Ok(SOME_EXITS), plain_number)?;
    words.end()?;
    let mut all = Vec::new();
    for vcpu in session.guest.machine.vcpus() {
        all.push(session.guest.machine.inspect().recent_exits(vcpu)?);
    }
    let newest = all.iter().flatten().map(|exit| exit.time).max();
    let Some(newest) = newest else {
        writeln!(out, "no vCPU has left the guest yet")?;
        return Ok(());
    };
    for (vcpu, exits) in session.guest.machine.vcpus().zip(&all) {
        let skipped = exits.len()
            - exits
                .len()
                .min(usize::try_from(count).unwrap_or(usize::MAX));
        writeln!(out, "{vcpu}:")?;
        for exit in &exits[skipped..] {
            let micros = newest.saturating_sub(exit.time) as f64 / 1e3;
            let addr = exit.addr.map(|addr| format!("{addr:#x}"));
            let rip = exit
                .rip
                .map_or("unknown".to_owned(), |rip| format!("{rip:#x}"));
            writeln!(
                out,
                "  {micros:>14.1} us ago: {:<15} {:<18} rip {rip}",
                exit.reason,
                addr.unwrap_or_default()
            )?;
        }
    }
    Ok(())
}

/// Reads, writes or lists model-specific registers.
pub(super) fn msr(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = words.vcpu(session)?;
    let Some(name) = words.optional() else {
        return list_msrs(session, vcpu, out);
    };
    let index = msr_number(name)?;
    let value = words.optional();
    words.end()?;
    if let Some(value) = value {
        let value = number(session, vcpu, value)?;
        session
            .guest
            .machine
            .inspect()
            .set_msr(vcpu, index, value)?;
    }
    let value = session.guest.machine.inspect().msr(vcpu, index)?;
    writeln!(out, "{vcpu}: {name} ({index:#x}) = {value:#018x}")?;
    Ok(())
}

pub(super) fn msr_number(name: &str) -> Result<u32, MonitorError> {
    let wrong = || MonitorError::NoMsr(name.to_owned());
    match msr::number(name) {
        Some(index) => Ok(index),
        None => u32::try_from(plain_number(name).map_err(|_| wrong())?).map_err(|_| wrong()),
    }
}

/// Those with names that this processor has.
fn list_msrs(session: &mut Session<'_>, vcpu: VcpuId, out: Output<'_>) -> Result<(), MonitorError> {
    writeln!(out, "{vcpu}:")?;
    for &(name, index) in msr::MSRS {
        if let Ok(value) = session.guest.machine.inspect().msr(vcpu, index) {
            writeln!(out, "  {name:<20} {index:#010x} {value:#018x}")?;
        }
    }
    Ok(())
}

/// A non-maskable interrupt for one vCPU, or for all.
pub(super) fn nmi(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let one = words.optional().map(plain_number).transpose()?;
    words.end()?;
    let count = session.guest.machine.vcpu_count();
    let vcpus = match one {
        None => 0..count,
        Some(n) if n < count as u64 => n as usize..n as usize + 1,
        Some(n) => {
            return Err(MonitorError::NoVcpu {
                found: n.to_string(),
                last: count - 1,
            });
        }
    };
    for vcpu in vcpus.map(VcpuId) {
        session.guest.machine.inspect().nmi(vcpu)?;
        writeln!(out, "{vcpu} takes an NMI when it resumes")?;
    }
    Ok(())
}

/// Power-on, stopped before the first instruction.
pub(super) fn reset(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("reset", arguments)?;
    session.reset_guest()?;
    writeln!(
        out,
        "the guest is reset and stands before its first instruction\n\
         gdb may still show what it has read before: maintenance flush register-cache"
    )?;
    Ok(())
}

/// Reads a device as the guest would.
pub(super) fn mmio_read(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let vcpu = session.selection.looked_at();
    let addr = number(session, vcpu, words.need("a physical address")?)?;
    let width = words.optional().map_or(Ok(4), plain_number)?;
    words.end()?;
    if !matches!(width, 1 | 2 | 4 | 8) {
        return Err(MonitorError::Width(width));
    }
    let mut bytes = [0; 8];
    let data = &mut bytes[..width as usize];
    match session
        .guest
        .machine
        .inspect()
        .read_mmio(PhysAddr(addr), data)
    {
        Ok(()) => {
            let digits = 2 + 2 * width as usize;
            let value = u64::from_le_bytes(bytes);
            writeln!(out, "{addr:#x}: {value:#0digits$x}")?;
        }
        Err(error) => writeln!(out, "{}", chain(&error))?,
    }
    Ok(())
}
