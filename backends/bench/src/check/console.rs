//! Consoles (virtio 1.4, section 5.3).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{Config, configure, configured, exchange, number, started};
use super::ring::no_stray;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, DriverError, QUIET, Session};

const CONSOLE: Need = Need::Type(DeviceType::CONSOLE);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const OPERATION: Source = Source::Virtio("5.3.6 Device Operation");
const MULTIPORT: Need = Need::Feature(VIRTIO_CONSOLE_F_MULTIPORT, "VIRTIO_CONSOLE_F_MULTIPORT");
const PORTS: Source = Source::Virtio("5.3.6.2.1 Device Requirements: Multiport Device Operation");

pub const CHECKS: &[Check] = &[
    Check {
        name: "console.output",
        level: Level::Should,
        source: OPERATION,
        rule: "for output, a buffer containing the characters is placed in the port's transmitq: \
               one byte, a page, and a page in five descriptors come back",
        needs: &[CONSOLE],
        run: output,
    },
    Check {
        name: "console.output-is-not-written",
        level: Level::Must,
        source: Source::Virtio("2.7.5.1 Device Requirements: The Virtqueue Descriptor Table"),
        rule: "a device MUST NOT write to a device-readable buffer: what is printed stays as it is",
        needs: &[CONSOLE],
        run: output_untouched,
    },
    Check {
        name: "console.input-buffers-are-kept",
        level: Level::Should,
        source: OPERATION,
        rule: "when a buffer is used in the receiveq, its contents are input: none is used without",
        needs: &[CONSOLE],
        run: input_kept,
    },
    Check {
        name: "console.emergency-write",
        level: Level::Must,
        source: Source::Virtio("5.3.5.1 Device Requirements: Device Initialization"),
        rule: "the device MUST allow a write to emerg_wr, even on an unconfigured device",
        needs: &[
            CONSOLE,
            CONFIG,
            Need::Feature(VIRTIO_CONSOLE_F_EMERG_WRITE, "VIRTIO_CONSOLE_F_EMERG_WRITE"),
        ],
        run: emergency_write,
    },
    Check {
        name: "console.max-nr-ports",
        level: Level::Should,
        source: Source::Virtio("5.3.4 Device configuration layout"),
        rule: "max_nr_ports is the maximum number of ports that the device supports: one at least",
        needs: &[CONSOLE, CONFIG, MULTIPORT],
        run: max_nr_ports,
    },
    Check {
        name: "console.ports",
        level: Level::Must,
        source: PORTS,
        rule: "the device MUST NOT specify a port which exists in a VIRTIO_CONSOLE_DEVICE_ADD \
               message, nor a port which is equal or greater than max_nr_ports",
        needs: &[CONSOLE, CONFIG, MULTIPORT, Need::Queues(4)],
        run: ports,
    },
];

const VIRTIO_CONSOLE_F_MULTIPORT: u32 = 1;
const VIRTIO_CONSOLE_F_EMERG_WRITE: u32 = 2;

const INPUT: usize = 0;
const OUTPUT: usize = 1;
const CONTROL_INPUT: usize = 2;
const CONTROL_OUTPUT: usize = 3;

/// VIRTIO_CONSOLE_DEVICE_READY and VIRTIO_CONSOLE_DEVICE_ADD.
const READY: u16 = 0;
const ADD: u64 = 1;

fn output(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    exchange(&mut session, OUTPUT, b".", 0)?;
    let page = [b'.'; 4096];
    exchange(&mut session, OUTPUT, &page, 0)?;
    let buffers = Buffers::place(session.memory(), &page, 0)?;
    let pieces = buffers.split(&[1, 1023, 1024, 7], &[]);
    session.queue_mut(OUTPUT).run(&pieces)?;
    Ok(())
}

fn output_untouched(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    exchange(&mut session, OUTPUT, b"outboard-check\r\n", 0)?;
    no_stray(&session)
}

fn input_kept(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for _ in 0..4 {
        let buffers = Buffers::place(session.memory(), &[], 64)?;
        session.queue_mut(INPUT).submit(buffers.chain())?;
    }
    // What a driver prints has been taken, so the device has had time for its input.
    exchange(&mut session, OUTPUT, b".", 0)?;
    session.queue(INPUT).is_notified_within(QUIET)?;
    while let Some(used) = session.queue_mut(INPUT).poll_used()? {
        demand(used.len != Some(0), || {
            "a receive buffer was used, and it is empty".into()
        })?;
    }
    Ok(())
}

fn emergency_write(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    let mut session = setup.prepare(bench.connect()?)?;
    configure(&mut session, 8, &[b'.', 0, 0, 0])
}

fn max_nr_ports(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 8)?;
    demand(config.number::<4>(4) > 0, || "max_nr_ports is 0".into())
}

fn ports(bench: &Bench) -> Verdict {
    let setup = bench.setup().queues(4, 64);
    let setup = setup.require_protocol(Protocol::CONFIG);
    let setup = setup.require(&[VIRTIO_CONSOLE_F_MULTIPORT]);
    let mut session = bench.start(&setup)?;
    let most = Config::read(&mut session, 8)?.number::<4>(4);
    let mut added = Vec::new();
    for port in announced(&mut session)? {
        demand(port < most, || {
            format!("port {port} is added, and max_nr_ports is {most}")
        })?;
        demand(!added.contains(&port), || {
            format!("port {port} is added twice")
        })?;
        added.push(port);
    }
    Ok(())
}

/// The ports of the VIRTIO_CONSOLE_DEVICE_ADD messages that come when the driver is ready.
fn announced(session: &mut Session) -> Result<Vec<u64>, Fault> {
    let mut waiting = Vec::new();
    for _ in 0..32 {
        let buffers = Buffers::place(session.memory(), &[], 64)?;
        let id = session.queue_mut(CONTROL_INPUT).submit(buffers.chain())?;
        waiting.push((id, buffers));
    }
    let mut message = 0u32.to_le_bytes().to_vec();
    message.extend(READY.to_le_bytes());
    message.extend(1u16.to_le_bytes());
    exchange(session, CONTROL_OUTPUT, &message, 0)?;
    let mut ports = Vec::new();
    while let Some(bytes) = next_message(session, &waiting, ports.is_empty())? {
        if number::<2>(&bytes, 4) == ADD {
            ports.push(number::<4>(&bytes, 0));
        }
    }
    Ok(ports)
}

/// The next control message. The first one may take its time.
fn next_message(
    session: &mut Session,
    waiting: &[(u16, Buffers)],
    is_first: bool,
) -> Result<Option<Vec<u8>>, Fault> {
    let queue = session.queue_mut(CONTROL_INPUT);
    let used = if is_first {
        queue.wait_used()
    } else {
        queue.wait_used_within(QUIET)
    };
    let used = match used {
        Err(DriverError::NotUsed { .. }) if is_first => {
            return Err(Fault::skip("the device adds no port"));
        }
        Err(DriverError::NotUsed { .. }) => return Ok(None),
        used => used?,
    };
    let known = waiting.iter().find(|(id, _)| *id == used.id);
    let Some((_, buffers)) = known else {
        return Ok(None);
    };
    Ok(Some(buffers.finish(session.memory())?))
}
