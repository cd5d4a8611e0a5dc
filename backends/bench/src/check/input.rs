//! Input devices (virtio 1.4, section 5.8).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{Config, configure, exchange, started};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, QUIET, Session};

const INPUT: Need = Need::Type(DeviceType::INPUT);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const LAYOUT: Source = Source::Virtio("5.8.4 Device configuration layout");

pub const CHECKS: &[Check] = &[
    Check {
        name: "input.unsupported-select",
        level: Level::Must,
        source: Source::Virtio("5.8.5.2 Device Requirements: Device Initialization"),
        rule: "a device MUST set the size field to zero if it doesn't support a given select and \
               subsel combination",
        needs: &[INPUT, CONFIG],
        run: unsupported_select,
    },
    Check {
        name: "input.name",
        level: Level::Should,
        source: LAYOUT,
        rule: "VIRTIO_INPUT_CFG_ID_NAME returns the name of the device in u.string, without a NUL \
               terminator",
        needs: &[INPUT, CONFIG],
        run: name,
    },
    Check {
        name: "input.ids",
        level: Level::Should,
        source: LAYOUT,
        rule: "VIRTIO_INPUT_CFG_ID_DEVIDS returns ID information of the device in u.ids: 8 bytes, \
               or none",
        needs: &[INPUT, CONFIG],
        run: ids,
    },
    Check {
        name: "input.event-types",
        level: Level::Should,
        source: LAYOUT,
        rule: "if size is non-zero the event type is supported and a bitmap of supported event \
               codes is returned: one is supported at least",
        needs: &[INPUT, CONFIG],
        run: event_types,
    },
    Check {
        name: "input.axes",
        level: Level::Should,
        source: LAYOUT,
        rule: "VIRTIO_INPUT_CFG_ABS_INFO returns information about the axis in u.abs: for each \
               axis that the device reports",
        needs: &[INPUT, CONFIG],
        run: axes,
    },
    Check {
        name: "input.status-is-used",
        level: Level::Should,
        source: Source::Virtio("5.8.6 Device Operation"),
        rule: "the statusq carries events from the driver, and the device uses its buffers",
        needs: &[INPUT],
        run: status_used,
    },
    Check {
        name: "input.events-are-whole",
        level: Level::Should,
        source: Source::Virtio("5.8.6 Device Operation"),
        rule: "events on the eventq are struct virtio_input_event: no buffer is used with another \
               length than 8",
        needs: &[INPUT],
        run: events_whole,
    },
];

const ID_NAME: u8 = 0x01;
const ID_DEVIDS: u8 = 0x03;
const EV_BITS: u8 = 0x11;
const ABS_INFO: u8 = 0x12;

const EV_ABS: u8 = 3;
/// Event types of Linux's input-event-codes.h.
const EVENT_TYPES: u8 = 0x1f;

const EVENTQ: usize = 0;
const STATUSQ: usize = 1;

fn start(bench: &Bench) -> Result<Session, Fault> {
    Ok(bench.start(&bench.setup().require_protocol(Protocol::CONFIG))?)
}

/// What the device has for a selection: `size` bytes.
fn query(session: &mut Session, select: u8, subsel: u8) -> Result<Vec<u8>, Fault> {
    configure(session, 0, &[select, subsel])?;
    let config = Config::read(session, 136)?;
    let size = config.number::<1>(2) as usize;
    demand(size <= 128, || {
        format!("size is {size} for select {select:#x}, subsel {subsel}, and u has 128 bytes")
    })?;
    Ok(config.bytes()[8..8 + size].to_vec())
}

fn unsupported_select(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    for (select, subsel) in [(0x77, 0), (EV_BITS, 0xff), (ABS_INFO, 0xff)] {
        let found = query(&mut session, select, subsel)?;
        demand(found.is_empty(), || {
            format!(
                "size is {} for select {select:#x}, subsel {subsel:#x}",
                found.len()
            )
        })?;
    }
    Ok(())
}

fn name(bench: &Bench) -> Verdict {
    let name = query(&mut start(bench)?, ID_NAME, 0)?;
    demand(!name.is_empty() && !name.contains(&0), || {
        format!("the name is {:?}", String::from_utf8_lossy(&name))
    })
}

fn ids(bench: &Bench) -> Verdict {
    let ids = query(&mut start(bench)?, ID_DEVIDS, 0)?;
    demand(matches!(ids.len(), 0 | 8), || {
        format!("size is {}", ids.len())
    })
}

fn event_types(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    let mut supported = 0;
    // Type 0 is EV_SYN, which every device reports.
    for kind in 1..=EVENT_TYPES {
        let codes = query(&mut session, EV_BITS, kind)?;
        supported += usize::from(!codes.is_empty());
    }
    demand(supported > 0, || "no event type is supported".into())
}

fn axes(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    let codes = query(&mut session, EV_BITS, EV_ABS)?;
    let has = |axis: u8| {
        let byte = codes.get(usize::from(axis / 8));
        byte.is_some_and(|byte| byte & 1 << (axis % 8) != 0)
    };
    let axes: Vec<_> = (0..64).filter(|axis| has(*axis)).collect();
    if axes.is_empty() {
        return Err(Fault::skip("the device has no absolute axis"));
    }
    for axis in axes {
        let info = query(&mut session, ABS_INFO, axis)?;
        demand(info.len() == 20, || {
            format!("size is {} for axis {axis}", info.len())
        })?;
    }
    Ok(())
}

fn status_used(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    // EV_SYN, which changes nothing.
    exchange(&mut session, STATUSQ, &[0; 8], 0)?;
    Ok(())
}

fn events_whole(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for _ in 0..16 {
        let buffers = Buffers::place(session.memory(), &[], 8)?;
        session.queue_mut(EVENTQ).submit(buffers.chain())?;
    }
    session.queue(EVENTQ).is_notified_within(QUIET)?;
    while let Some(used) = session.queue_mut(EVENTQ).poll_used()? {
        demand(used.len.is_none_or(|len| len == 8), || {
            format!("an event has {:?} bytes", used.len)
        })?;
    }
    Ok(())
}
