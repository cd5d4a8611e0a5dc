//! `monitor break-if`: conditions of gdb's breakpoints that need no round trip.

use super::args::{Output, Words, number, plain_number};
use super::error::MonitorError;
use crate::breakpoints::Condition;
use crate::session::Session;
use crate::target::{VcpuId, VirtAddr};

/// Most conditions at once.
const MAX: usize = 1024;

/// Without arguments the list; else ADDR and its condition, or `off`.
pub(super) fn break_if(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let Some(addr) = words.optional() else {
        return list(session, out);
    };
    let addr = VirtAddr(number(session, session.selection.looked_at(), addr)?);
    let first = words.need("a condition, or off,")?;
    if first == "off" {
        words.end()?;
        if !session.guest.breakpoints.conditions.remove(addr) {
            writeln!(out, "there is no condition at {:#x}", addr.0)?;
        }
        return Ok(());
    }
    let mut condition = Condition::default();
    let mut word = Some(first);
    while let Some(part) = word {
        add(session, &mut condition, part)?;
        word = words.optional();
    }
    if session.guest.breakpoints.conditions.len() >= MAX {
        return Err(MonitorError::TooManyConditions { most: MAX });
    }
    session.guest.breakpoints.conditions.set(addr, condition);
    writeln!(
        out,
        "breakpoints at {:#x} stop the guest if {condition}",
        addr.0
    )?;
    Ok(())
}

fn list(session: &Session<'_>, out: Output<'_>) -> Result<(), MonitorError> {
    for (addr, conditional) in session.guest.breakpoints.conditions.list() {
        writeln!(
            out,
            "{:#x}: {}; met {} times, not met {} times",
            addr.0, conditional.condition, conditional.met, conditional.unmet
        )?;
    }
    Ok(())
}

/// Adds KEY=VALUE.
fn add(session: &Session<'_>, condition: &mut Condition, part: &str) -> Result<(), MonitorError> {
    let unknown = || MonitorError::Condition(part.to_owned());
    let (key, value) = part.split_once('=').ok_or_else(unknown)?;
    match key {
        "cr3" => condition.cr3 = Some(number(session, session.selection.looked_at(), value)?),
        "cpl" => {
            let cpl = plain_number(value)?;
            let valid = u8::try_from(cpl).ok().filter(|cpl| *cpl <= 3);
            condition.cpl = Some(valid.ok_or_else(unknown)?);
        }
        "vcpu" => {
            let count = session.guest.machine.vcpu_count();
            let vcpu = usize::try_from(plain_number(value)?).ok();
            let found = part.to_owned();
            let last = count - 1;
            let vcpu = vcpu.filter(|vcpu| *vcpu < count);
            condition.vcpu = Some(VcpuId(vcpu.ok_or(MonitorError::NoVcpu { found, last })?));
        }
        "hits" => condition.hits = plain_number(value)?,
        _ => return Err(unknown()),
    }
    Ok(())
}
