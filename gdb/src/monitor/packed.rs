//! `monitor vq` of a packed queue.

use super::args::Output;
use super::error::MonitorError;
use crate::address::PhysAddr;
use crate::inspect::Virtqueue;
use crate::packed::{Descriptor, Ring, Turn, Wish};
use crate::session::Session;
use crate::virtqueue::flag;

/// Chains that `vq` shows, of either kind of ring.
pub(super) const MOST_CHAINS: usize = 64;

/// The ring's descriptors: all of them, or those that the driver wrote last.
pub(super) fn write(
    session: &Session<'_>,
    queue: &Virtqueue,
    all: bool,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let ring = Ring::read(queue, &|at, buf| {
        session.guest.machine.read_physical(at, buf)
    })?;
    writeln!(out, "interrupts: {}", wish(ring.driver))?;
    writeln!(out, "kicks: {}", wish(ring.device))?;
    let shown = ring.descriptors.iter().enumerate();
    let mut shown = shown.filter(|(_, descriptor)| all || descriptor.turn == Turn::Available);
    let most = if all { usize::MAX } else { MOST_CHAINS };
    match all {
        true => writeln!(out, "descriptor ring:")?,
        false => writeln!(
            out,
            "made available, and perhaps used since with the one before them; \
             how far the device is, it alone knows:"
        )?,
    }
    for (index, descriptor) in shown.by_ref().take(most) {
        write_descriptor(session, index, descriptor, out)?;
    }
    match shown.count() {
        0 => {}
        more => writeln!(out, "and {more} more")?,
    }
    Ok(())
}

fn wish(wish: Wish) -> String {
    match wish {
        Wish::Always => "wanted".to_owned(),
        Wish::Never => "not wanted".to_owned(),
        Wish::At { entry, wrap } => format!("wanted at entry {entry}, wrap {}", u8::from(wrap)),
        Wish::Reserved(flags) => format!("unknown flags {flags:#x}"),
    }
}

fn write_descriptor(
    session: &Session<'_>,
    index: usize,
    descriptor: &Descriptor,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let Descriptor {
        addr,
        len,
        id,
        flags,
        turn,
        wrap,
    } = *descriptor;
    let turn = match turn {
        Turn::Available => "available",
        Turn::Used => "used",
    };
    let wrap = u8::from(wrap);
    let use_of = match flags {
        flags if flags & flag::INDIRECT != 0 => "indirect table",
        flags if flags & flag::WRITE != 0 => "device writes",
        _ => "device reads",
    };
    write!(
        out,
        "  {index}: {turn}, wrap {wrap}, id {id}, {:#x}, {len} bytes, {use_of}",
        addr.0
    )?;
    if flags & flag::NEXT != 0 {
        write!(out, ", and the next")?;
    }
    let unknown = flags & !(flag::NEXT | flag::WRITE | flag::INDIRECT);
    if unknown != 0 {
        write!(out, ", unknown flags {unknown:#x}")?;
    }
    if !is_ram(session, addr, len) {
        write!(out, ", NOT IN RAM")?;
    }
    writeln!(out)?;
    Ok(())
}

/// Whether both ends of a buffer are in RAM.
pub(super) fn is_ram(session: &Session<'_>, addr: PhysAddr, len: u32) -> bool {
    let last = addr.0.checked_add(u64::from(len.saturating_sub(1)));
    let byte = |addr| session.guest.machine.read_physical(addr, &mut [0]).is_ok();
    len == 0 || byte(addr) && last.is_some_and(|last| byte(PhysAddr(last)))
}
