//! `monitor info registers`: a vCPU as QEMU's monitor shows it, which pwndbg, gef and
//! others read. gdb knows neither descriptor tables nor debug registers.

use super::args::{Output, only_vcpu};
use super::error::MonitorError;
use super::info::write_slot;
use crate::hmp;
use crate::session::Session;
use crate::target::Activity;

pub(super) fn registers(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let vcpu = only_vcpu(session, arguments)?;
    let registers = session.guest.machine.registers(vcpu)?;
    let is_halted = session.guest.machine.activity(vcpu)? == Activity::Halted;
    let debug = session.guest.machine.inspect().debug_registers(vcpu)?;
    hmp::write_registers(out, vcpu.0, &registers, is_halted, &debug)?;
    write_slots(session, out)
}

/// What the processor has in place of the guest's debug registers.
fn write_slots(session: &Session<'_>, out: Output<'_>) -> Result<(), MonitorError> {
    let slots = &session.guest.breakpoints.slots;
    let armed = slots.to_arm(None);
    if armed.iter().any(Option::is_some) {
        writeln!(out, "in place of the guest's DR0 to DR3, while it runs:")?;
        for (n, slot) in armed.into_iter().enumerate() {
            write_slot(out, slots, n, slot)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "registers_test.rs"]
mod tests;
