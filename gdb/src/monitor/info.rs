//! `monitor info …`.

use super::args::{Output, no_argument};
use super::error::MonitorError;
use crate::breakpoints::{Placement, Slots};
use crate::session::Session;
use crate::target::{HwBreakpoint, HwKind, Int3, Traps};

/// A line for each vCPU: where it is and in which address space.
pub(super) fn vcpus(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info vcpus", arguments)?;
    for vcpu in session.guest.machine.vcpus() {
        let mark = if vcpu == session.selection.focus() {
            '*'
        } else {
            ' '
        };
        write!(out, "{mark} {}", session.describe(vcpu))?;
        if let Ok(registers) = session.guest.machine.registers(vcpu) {
            write!(out, ", rip {:#x}, cr3 {:#x}", registers.rip, registers.cr3)?;
        }
        if let Some(text) = session.crash(vcpu) {
            write!(out, ": {text}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// The software breakpoints with where they went, then the slots.
pub(super) fn breakpoints(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info breakpoints", arguments)?;
    // gdb takes its breakpoints out while the guest is stopped.
    writeln!(out, "planted now (gdb plants when it resumes the guest):")?;
    for (addr, software) in session.guest.breakpoints.list() {
        let command = match (software.gdb, software.trace) {
            (true, true) => "break and trace",
            (false, true) => "trace",
            (true, false) => "break",
            // There while the guest runs only.
            (false, false) => continue,
        };
        let addr = addr.0;
        match software.placement {
            Placement::Byte(phys) => {
                let phys = phys.0;
                writeln!(out, "  {command} {addr:#x}: int3 at physical {phys:#x}")?;
            }
            Placement::Slot => writeln!(out, "  {command} {addr:#x}: hardware slot")?,
            Placement::Pending => {
                writeln!(
                    out,
                    "  {command} {addr:#x}: pending, its page is not mapped"
                )?;
            }
        }
    }
    writeln!(out, "hardware slots:")?;
    let slots = &session.guest.breakpoints.slots;
    for (n, slot) in slots.to_arm(None).into_iter().enumerate() {
        write_slot(out, slots, n, slot)?;
    }
    for (addr, len) in session.guest.breakpoints.watched.list() {
        let addr = addr.0;
        writeln!(
            out,
            "write-protected pages for watch {addr:#x} ({len} bytes)"
        )?;
    }
    Ok(())
}

/// The event that hardware slot `n` waits for, and its owner.
pub(super) fn write_slot(
    out: Output<'_>,
    slots: &Slots,
    n: usize,
    slot: Option<HwBreakpoint>,
) -> Result<(), MonitorError> {
    let Some(slot) = slot else {
        writeln!(out, "  {n}: free")?;
        return Ok(());
    };
    let kind = match slot.kind {
        HwKind::Execute => "execute",
        HwKind::Write => "write",
        HwKind::Access => "access",
    };
    let holders: Vec<_> = slots
        .holders(slot)
        .map(|holder| holder.to_string())
        .collect();
    writeln!(
        out,
        "  {n}: {kind} {:#x}, {} bytes, for {}",
        slot.addr.0,
        slot.len,
        holders.join(", ")
    )?;
    Ok(())
}

/// In QEMU's words, which front ends look for: it names the accelerator.
pub(super) fn kvm(
    _: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info kvm", arguments)?;
    writeln!(out, "kvm support: enabled")?;
    Ok(())
}

/// The probe's findings, for each privilege level.
pub(super) fn host(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info host", arguments)?;
    let traps = session.guest.machine.host_traps();
    for (name, ring) in [("ring 0", traps.ring0), ("ring 3", traps.ring3)] {
        writeln!(out, "{name}: {}", list(&ring))?;
    }
    Ok(())
}

fn list(ring: &Traps) -> String {
    [
        ("single-step", ring.step),
        ("int3", ring.int3 == Int3::Trapped),
        ("hardware breakpoint", ring.hw_breakpoint),
        ("watchpoint", ring.watchpoint),
    ]
    .map(|(name, traps)| format!("{name} {}", if traps { "traps" } else { "does not trap" }))
    .join(", ")
}
