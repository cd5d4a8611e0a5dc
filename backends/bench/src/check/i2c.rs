//! I2C adapters (virtio 1.4, section 5.16).
//!
//! All requests are for an address that no device has, so nothing on the bus changes.

use super::bench::Bench;
use super::exchange::UNWRITTEN;
use super::ring::no_stray;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, Session};

const I2C: Need = Need::Type(DeviceType::I2C);
const REQUIREMENTS: Source = Source::Virtio("5.16.6.4 Device Requirements: Device Operation");
const QUEUE: Source = Source::Virtio("5.16.6.1 Device Operation: Request Queue");

const F_ZERO_LENGTH_REQUEST: u32 = 0;
const ZERO_LENGTH: Need = Need::Feature(F_ZERO_LENGTH_REQUEST, "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST");

pub const CHECKS: &[Check] = &[
    Check {
        name: "i2c.zero-length-offered",
        level: Level::Must,
        source: REQUIREMENTS,
        rule: "a device MUST offer the VIRTIO_I2C_F_ZERO_LENGTH_REQUEST feature",
        needs: &[I2C],
        run: zero_length_offered,
    },
    Check {
        name: "i2c.zero-length",
        level: Level::Should,
        source: QUEUE,
        rule: "buf will not be present for a zero-length request, and the final status byte is \
               written by the device: VIRTIO_I2C_MSG_ERR where nobody has the address",
        needs: &[I2C, ZERO_LENGTH],
        run: |bench| is_error(bench, 0, &[], 0),
    },
    Check {
        name: "i2c.read-of-nobody",
        level: Level::Should,
        source: QUEUE,
        rule: "the final status byte is written by the device: VIRTIO_I2C_MSG_ERR where nobody \
               has the address that is read",
        needs: &[I2C, ZERO_LENGTH],
        run: |bench| is_error(bench, READ, &[], 4),
    },
    Check {
        name: "i2c.write-to-nobody",
        level: Level::Should,
        source: QUEUE,
        rule: "the final status byte is written by the device: VIRTIO_I2C_MSG_ERR where nobody \
               has the address that is written",
        needs: &[I2C, ZERO_LENGTH],
        run: |bench| is_error(bench, 0, &[1, 2], 0),
    },
    Check {
        name: "i2c.framing",
        level: Level::Must,
        source: Source::Virtio("2.7.4.1 Device Requirements: Message Framing"),
        rule: "the device MUST NOT make assumptions about the particular arrangement of \
               descriptors: the header may have its buf in the same one",
        needs: &[I2C, ZERO_LENGTH],
        run: framing,
    },
    Check {
        name: "i2c.request-is-kept",
        level: Level::Must,
        source: REQUIREMENTS,
        rule: "a device MUST NOT change addr and reserved bits of flags, nor the buf of a write \
               request",
        needs: &[I2C, ZERO_LENGTH],
        run: request_is_kept,
    },
    Check {
        name: "i2c.order",
        level: Level::Must,
        source: REQUIREMENTS,
        rule: "a device MUST guarantee the requests in the virtqueue being processed in order if \
               multiple requests are received at a time",
        needs: &[I2C, ZERO_LENGTH],
        run: order,
    },
    Check {
        name: "i2c.failed-group",
        level: Level::Must,
        source: REQUIREMENTS,
        rule: "if processing of some of the requests fails, a device MUST set the status of the \
               first failed request to be VIRTIO_I2C_MSG_ERR",
        needs: &[I2C, ZERO_LENGTH],
        run: failed_group,
    },
    Check {
        name: "i2c.short-header",
        level: Level::Should,
        source: QUEUE,
        rule: "the driver's part is a header of 8 bytes: a request with 4 harms nobody, and the \
               next one is served",
        needs: &[I2C, ZERO_LENGTH, Need::Reconnects],
        run: short_header,
    },
];

const FAIL_NEXT: u32 = 1;
const READ: u32 = 2;
const ERR: u8 = 1;

/// A 7-bit address that the I2C specification (section 3.1.12) reserves, as `addr` has it.
const NOBODY: u16 = 0x7f << 1;

fn header(flags: u32) -> Vec<u8> {
    let mut bytes = NOBODY.to_le_bytes().to_vec();
    bytes.extend([0, 0]);
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn start(bench: &Bench) -> Result<Session, Fault> {
    Ok(bench.start(&bench.setup().require(&[F_ZERO_LENGTH_REQUEST]))?)
}

/// The chain of a request: header, data and status in descriptors of their own, as Linux has it.
fn place(session: &Session, flags: u32, out: &[u8], into: u32) -> Result<Buffers, Fault> {
    let readable = [header(flags), out.to_vec()].concat();
    let buffers = Buffers::place(session.memory(), &readable, into + 1)?;
    buffers.refill(session.memory(), UNWRITTEN)?;
    Ok(buffers)
}

fn submit(session: &mut Session, buffers: &Buffers, into: u32) -> Result<u16, Fault> {
    let chain = buffers.split(&[8], &[into]);
    Ok(session.queue_mut(0).add(&chain)?)
}

fn zero_length_offered(bench: &Bench) -> Verdict {
    demand(bench.profile().has(F_ZERO_LENGTH_REQUEST), || {
        "VIRTIO_I2C_F_ZERO_LENGTH_REQUEST is not offered".into()
    })
}

fn is_error(bench: &Bench, flags: u32, out: &[u8], into: u32) -> Verdict {
    let mut session = start(bench)?;
    let buffers = place(&session, flags, out, into)?;
    submit(&mut session, &buffers, into)?;
    comes_back_failed(&mut session, &buffers)
}

/// A request to nobody that was made available.
fn comes_back_failed(session: &mut Session, buffers: &Buffers) -> Verdict {
    session.queue(0).kick();
    session.queue_mut(0).wait_used()?;
    let status = buffers.finish(session.memory())?.pop();
    demand(status == Some(ERR), || format!("the status is {status:?}"))
}

fn framing(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    let buffers = place(&session, 0, &[1, 2, 3], 0)?;
    session.queue_mut(0).add(buffers.chain())?;
    comes_back_failed(&mut session, &buffers)
}

fn request_is_kept(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    let buffers = place(&session, 0, &[1, 2, 3], 0)?;
    submit(&mut session, &buffers, 0)?;
    session.queue(0).kick();
    session.queue_mut(0).wait_used()?;
    no_stray(&session)
}

/// Makes four requests at a time; returns the status of each.
fn group(session: &mut Session) -> Result<Vec<u8>, Fault> {
    let mut waiting = Vec::new();
    for flags in [FAIL_NEXT, FAIL_NEXT, FAIL_NEXT, 0] {
        let buffers = place(session, flags, &[1], 0)?;
        waiting.push((submit(session, &buffers, 0)?, buffers));
    }
    session.queue(0).kick();
    let mut status = Vec::new();
    for (n, (id, buffers)) in waiting.into_iter().enumerate() {
        let used = session.queue_mut(0).wait_used()?;
        demand(used.id == id, || {
            format!("request {n} did not come back in its place")
        })?;
        status.extend(buffers.finish(session.memory())?);
    }
    Ok(status)
}

fn order(bench: &Bench) -> Verdict {
    group(&mut start(bench)?)?;
    Ok(())
}

fn failed_group(bench: &Bench) -> Verdict {
    let status = group(&mut start(bench)?)?;
    demand(status.first() == Some(&ERR), || {
        format!("the status bytes of four requests to nobody are {status:?}")
    })
}

fn short_header(bench: &Bench) -> Verdict {
    let mut session = start(bench)?;
    let buffers = Buffers::place(session.memory(), &header(0)[..4], 1)?;
    session.queue_mut(0).submit(buffers.chain())?;
    // A backend that is still there has seen the kick by the time it answers.
    session.frontend().is_served();
    drop(session);
    is_error(bench, 0, &[1], 0)
}
