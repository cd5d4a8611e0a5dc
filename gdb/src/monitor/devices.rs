//! `monitor info devices|queues` and `vq`.

use host_io::errors::chain;

use super::args::{Output, Words, no_argument, plain_number};
use super::error::MonitorError;
use super::packed::{self, MOST_CHAINS, is_ram};
use crate::inspect::{Device, Queue, Virtqueue};
use crate::session::Session;
use crate::virtqueue::{Link, Rings, flag};

/// Entries of each ring that `vq` shows.
const RECENT: u16 = 16;

/// Pauses the devices whenever the guest is stopped, or lets them keep working.
pub(super) fn pause(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let wanted = Words::new(arguments).on_off()?;
    if let Some(wanted) = wanted {
        let machine = &mut session.guest.machine;
        session.devices.want_pause(machine, wanted)?;
    }
    let what = match session.devices.is_pause_wanted() {
        true => "devices stand still while the guest is stopped",
        false => "devices keep working while the guest is stopped",
    };
    writeln!(out, "{what}")?;
    Ok(())
}

/// The virtio devices with their backends.
pub(super) fn devices(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info devices", arguments)?;
    let devices = session.guest.machine.inspect().devices()?;
    if devices.is_empty() {
        writeln!(out, "no devices")?;
    }
    for (n, device) in devices.iter().enumerate() {
        let Device { id, addr, .. } = device;
        writeln!(
            out,
            "{n}: {id}, {}, at {:#x}, interrupt {}",
            device.device_type, addr.0, device.interrupt
        )?;
        writeln!(out, "   status: {}", or_none(&device.status))?;
        writeln!(out, "   features: {}", or_none(&device.features.join(" ")))?;
        if let Some(backend) = &device.backend {
            writeln!(out, "   backend: {backend}")?;
        }
        let running = device.queues.iter().filter(|queue| queue.running).count();
        writeln!(out, "   queues: {running} of {} run", device.queues.len())?;
        let counters: Vec<_> = device
            .counters
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        writeln!(out, "   since the start: {}", counters.join(", "))?;
    }
    Ok(())
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

/// Where each queue lies and how full it is.
pub(super) fn queues(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    no_argument("info queues", arguments)?;
    let devices = session.guest.machine.inspect().devices()?;
    if devices.is_empty() {
        writeln!(out, "no devices")?;
    }
    for device in devices {
        for (n, queue) in device.queues.iter().enumerate() {
            write!(out, "{} queue {n}: ", device.id)?;
            write_queue(session, queue, out)?;
        }
    }
    Ok(())
}

fn write_queue(session: &Session<'_>, queue: &Queue, out: Output<'_>) -> Result<(), MonitorError> {
    let Some(ready) = &queue.ready else {
        writeln!(out, "not set up, at most {} entries", queue.max_size)?;
        return Ok(());
    };
    write_place(ready, queue.running, out)?;
    if queue.errors > 0 {
        write!(out, ", errors reported: {}", queue.errors)?;
    }
    if ready.packed {
        writeln!(out)?;
        return Ok(());
    }
    match read(session, ready) {
        Ok(rings) => {
            let count = rings.available_index.wrapping_sub(rings.used_index);
            writeln!(out, ", {count} in flight")?;
        }
        Err(error) => writeln!(out, ": {}", chain(&error))?,
    }
    Ok(())
}

fn write_place(queue: &Virtqueue, running: bool, out: Output<'_>) -> Result<(), MonitorError> {
    let [descriptors, available, used] = match queue.packed {
        true => ["packed ring", "driver events", "device events"],
        false => ["descriptors", "available", "used"],
    };
    write!(
        out,
        "{} entries, {descriptors} {:#x}, {available} {:#x}, {used} {:#x}, {}",
        queue.size,
        queue.descriptors.0,
        queue.available.0,
        queue.used.0,
        if running { "running" } else { "stopped" }
    )?;
    Ok(())
}

fn read(session: &Session<'_>, queue: &Virtqueue) -> crate::target::Result<Rings> {
    Rings::read(queue, &|at, buf| {
        session.guest.machine.read_physical(at, buf)
    })
}

/// One queue in full.
pub(super) fn vq(
    session: &mut Session<'_>,
    arguments: &str,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let mut words = Words::new(arguments);
    let name = words.need("a device, by name or number,")?;
    let number = words.optional().map_or(Ok(0), plain_number)?;
    let all = match words.optional() {
        None => false,
        Some("all") => true,
        Some(word) => return Err(MonitorError::TooMany(word.to_owned())),
    };
    words.end()?;
    let (_, device) = find(session.guest.machine.inspect().devices()?, name)?;
    let queue = usize::try_from(number).ok();
    let Some(queue) = queue.and_then(|number| device.queues.get(number)) else {
        return Err(MonitorError::NoQueue {
            device: device.id,
            number,
            count: device.queues.len(),
        });
    };
    let Some(ready) = &queue.ready else {
        writeln!(
            out,
            "{} queue {number} is not set up by the driver",
            device.id
        )?;
        return Ok(());
    };
    write!(out, "{} queue {number}: ", device.id)?;
    write_place(ready, queue.running, out)?;
    writeln!(out)?;
    if ready.packed {
        return packed::write(session, ready, all, out);
    }
    let rings = read(session, ready)?;
    write_indices(&device, &rings, out)?;
    write_in_flight(session, &rings, out)?;
    write_recent(&rings, out)?;
    if all {
        writeln!(out, "descriptor table:")?;
        for (index, descriptor) in (0..).zip(&rings.table) {
            let link = Link {
                index,
                indirect: false,
                descriptor: *descriptor,
            };
            write_link(session, &link, out)?;
        }
    }
    Ok(())
}

/// The device of this name or, else, number; with its number.
pub(super) fn find(devices: Vec<Device>, name: &str) -> Result<(usize, Device), MonitorError> {
    let names: Vec<_> = devices.iter().map(|device| device.id.clone()).collect();
    let by_name = names.iter().position(|id| id == name);
    let place = by_name.or_else(|| name.parse().ok());
    let found = place.and_then(|place| Some((place, devices.into_iter().nth(place)?)));
    found.ok_or_else(|| MonitorError::NoDevice {
        found: name.to_owned(),
        names: or_none(&names.join(", ")).to_owned(),
    })
}

fn write_indices(device: &Device, rings: &Rings, out: Output<'_>) -> Result<(), MonitorError> {
    let event = |event: u16, flags: u16, what: &str| match (device.event_idx, flags) {
        (true, _) => format!("{what} wanted at {event}"),
        (false, 0) => format!("{what} wanted"),
        (false, _) => format!("no {what} wanted"),
    };
    writeln!(
        out,
        "available: index {}, {}",
        rings.available_index,
        event(rings.used_event, rings.available_flags & 1, "interrupt")
    )?;
    writeln!(
        out,
        "used: index {}, {}",
        rings.used_index,
        event(rings.available_event, rings.used_flags & 1, "kick")
    )?;
    Ok(())
}

fn write_in_flight(
    session: &Session<'_>,
    rings: &Rings,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    let in_flight = rings.in_flight();
    writeln!(out, "in flight: {}", in_flight.count)?;
    if in_flight.count > rings.size {
        writeln!(
            out,
            "the used index is ahead of the available one, or more than the queue's size behind: the queue is broken"
        )?;
        return Ok(());
    }
    for head in in_flight.heads.iter().take(MOST_CHAINS) {
        write_chain(session, rings, *head, out)?;
    }
    if in_flight.heads.len() > MOST_CHAINS {
        let more = in_flight.heads.len() - MOST_CHAINS;
        writeln!(out, "and {more} more")?;
    }
    let known = in_flight.heads.len();
    let unknown = usize::from(in_flight.count).saturating_sub(known);
    if unknown == 0 {
        return Ok(());
    }
    let list = |heads: &[u16]| {
        let heads: Vec<_> = heads.iter().map(u16::to_string).collect();
        heads.join(" ")
    };
    if in_flight.perhaps.is_empty() {
        writeln!(out, "{unknown} of them are no longer in the available ring")?;
    } else {
        writeln!(
            out,
            "{unknown} of the chains that begin at {}, or earlier ones; the rings do not tell, \
             because the device finishes out of order",
            list(&in_flight.perhaps)
        )?;
    }
    Ok(())
}

fn write_chain(
    session: &Session<'_>,
    rings: &Rings,
    head: u16,
    out: Output<'_>,
) -> Result<(), MonitorError> {
    writeln!(out, "chain {head}:")?;
    let read = |at, buf: &mut [u8]| session.guest.machine.read_physical(at, buf);
    let (links, broken) = rings.chain(head, &read);
    for link in &links {
        write_link(session, link, out)?;
    }
    if let Some(broken) = broken {
        writeln!(out, "  broken: {broken}")?;
    }
    Ok(())
}

fn write_link(session: &Session<'_>, link: &Link, out: Output<'_>) -> Result<(), MonitorError> {
    let descriptor = link.descriptor;
    let flags = descriptor.flags;
    let table = if link.indirect { "  indirect " } else { "" };
    let use_of = match flags {
        flags if flags & flag::INDIRECT != 0 => "indirect table",
        flags if flags & flag::WRITE != 0 => "device writes",
        _ => "device reads",
    };
    write!(
        out,
        "  {table}{}: {:#x}, {} bytes, {use_of}",
        link.index, descriptor.addr.0, descriptor.len
    )?;
    if flags & flag::NEXT != 0 {
        write!(out, ", next {}", descriptor.next)?;
    }
    let unknown = flags & !(flag::NEXT | flag::WRITE | flag::INDIRECT);
    if unknown != 0 {
        write!(out, ", unknown flags {unknown:#x}")?;
    }
    if !is_ram(session, descriptor.addr, descriptor.len) {
        write!(out, ", NOT IN RAM")?;
    }
    writeln!(out)?;
    Ok(())
}

fn write_recent(rings: &Rings, out: Output<'_>) -> Result<(), MonitorError> {
    let last = RECENT.min(rings.size);
    let back = |index: u16| (1..=last).rev().map(move |back| index.wrapping_sub(back));
    let available: Vec<_> = back(rings.available_index)
        .map(|index| rings.available_at(index).to_string())
        .collect();
    let used: Vec<_> = back(rings.used_index)
        .map(|index| rings.used_at(index))
        .map(|(head, len)| format!("{head}:{len}"))
        .collect();
    writeln!(out, "last {last} available, heads: {}", available.join(" "))?;
    writeln!(out, "last {last} used, head:bytes: {}", used.join(" "))?;
    Ok(())
}
