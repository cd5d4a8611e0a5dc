//! `monitor trap`: accesses to devices that stop the guest.

use super::args::{Output, Words, plain_number};
use super::devices::find;
use super::error::MonitorError;
use super::machine::msr_number;
use crate::inspect::Trap;
use crate::session::Session;

/// Most traps at once.
const MOST: usize = 32;

/// Sets a trap, takes all away, or lists them.
pub(super) fn trap(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let trap = match words.optional() {
        None => return list(session, out),
        Some("off") => {
            words.end()?;
            set(session, Vec::new())?;
            return list(session, out);
        }
        Some("mmio") => {
            let (first, last) = range(&mut words, u64::MAX)?;
            Trap::Mmio { first, last }
        }
        Some("pio") => {
            let (first, last) = range(&mut words, u16::MAX.into())?;
            Trap::Ports { first, last }
        }
        Some("msr") => Trap::Msr {
            index: msr_number(words.need("an MSR, by name or number,")?)?,
        },
        Some("kick") => kick(session, &mut words)?,
        Some(word) => return Err(MonitorError::NoTrap(word.to_owned())),
    };
    words.end()?;
    check_ram(session, &trap)?;
    let mut traps = session.devices.traps().to_vec();
    if traps.len() == MOST {
        return Err(MonitorError::TooManyTraps { most: MOST });
    }
    traps.push(trap);
    set(session, traps)?;
    list(session, out)
}

fn set(session: &mut Session<'_>, traps: Vec<Trap>) -> Result<(), MonitorError> {
    let machine = &mut session.guest.machine;
    Ok(session.devices.set_traps(machine, traps)?)
}

fn range(words: &mut Words<'_>, most: u64) -> Result<(u64, u64), MonitorError> {
    let first = plain_number(words.need("an address")?)?;
    let last = words.optional().map_or(Ok(first), plain_number)?;
    if first > last || last > most {
        return Err(MonitorError::Range { first, last, most });
    }
    Ok((first, last))
}

fn kick(session: &mut Session<'_>, words: &mut Words<'_>) -> Result<Trap, MonitorError> {
    let name = words.need("a device, by name or number,")?;
    let number = words.optional().map_or(Ok(0), plain_number)?;
    let (device, found) = find(session.guest.machine.inspect().devices()?, name)?;
    let count = found.queues.len();
    match usize::try_from(number).ok().filter(|queue| *queue < count) {
        Some(queue) => Ok(Trap::Kick { device, queue }),
        None => Err(MonitorError::NoQueue {
            device: found.id,
            number,
            count,
        }),
    }
}

/// RAM does not exit: a trap there would never be met.
fn check_ram(session: &mut Session<'_>, trap: &Trap) -> Result<(), MonitorError> {
    let Trap::Mmio { first, last } = *trap else {
        return Ok(());
    };
    let windows = session.guest.machine.inspect().windows()?;
    let is_ram = windows.iter().any(|window| {
        let end = window.start.0.saturating_add(window.len - 1);
        window.is_ram && window.start.0 <= last && first <= end
    });
    if is_ram {
        return Err(MonitorError::TrapInRam { first, last });
    }
    Ok(())
}

fn list(session: &mut Session<'_>, out: Output<'_>) -> Result<(), MonitorError> {
    let devices = session.guest.machine.inspect().devices()?;
    let traps = session.devices.traps();
    if traps.is_empty() {
        writeln!(out, "nothing is trapped")?;
    }
    for trap in traps {
        match *trap {
            Trap::Mmio { first, last } => {
                writeln!(out, "accesses to {first:#x}-{last:#x}")?;
                let window = |device: &&crate::inspect::Device| {
                    device.addr.0 <= last && first <= device.addr.0 + 0xfff
                };
                for device in devices.iter().filter(window) {
                    writeln!(
                        out,
                        "  of {}: writes only, and neither kicks (trap kick) nor interrupt \
                         acknowledgements; the others do not leave the kernel",
                        device.id
                    )?;
                }
            }
            Trap::Ports { first, last } => writeln!(out, "ports {first:#x}-{last:#x}")?,
            Trap::Msr { index } => writeln!(out, "MSR {index:#x}")?,
            Trap::Kick { device, queue } => {
                let id = devices.get(device).map_or("?", |device| &device.id);
                writeln!(out, "kicks of {id} queue {queue}")?;
            }
        }
    }
    Ok(())
}
