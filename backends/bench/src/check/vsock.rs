//! Sockets (virtio 1.4, section 5.10).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

use super::bench::Bench;
use super::exchange::{configured, exchange, number};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, DriverError, QUIET, Session};

const VSOCK: Need = Need::Type(DeviceType::VSOCK);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const RECEIVE: Source =
    Source::Virtio("5.10.6.4.2 Device Requirements: Device Operation: Receive and Transmit");
const STREAMS: Source = Source::Virtio("5.10.6.5 Stream Sockets");

pub const CHECKS: &[Check] = &[
    Check {
        name: "vsock.guest-cid",
        level: Level::Must,
        source: RECEIVE,
        rule: "the guest_cid configuration field MUST NOT contain a reserved CID",
        needs: &[VSOCK, CONFIG],
        run: guest_cid,
    },
    Check {
        name: "vsock.no-implied-stream",
        level: Level::Should,
        source: Source::Virtio("5.10.3.2 Device Requirements: Feature bits"),
        rule: "the device SHOULD offer the VIRTIO_VSOCK_F_NO_IMPLIED_STREAM feature",
        needs: &[VSOCK],
        run: no_implied_stream,
    },
    Check {
        name: "vsock.unknown-type",
        level: Level::Must,
        source: RECEIVE,
        rule: "a VIRTIO_VSOCK_OP_RST reply MUST be sent if a packet is received with an unknown \
               type value",
        needs: &[VSOCK, CONFIG],
        run: unknown_type,
    },
    Check {
        name: "vsock.nobody-listens",
        level: Level::Should,
        source: STREAMS,
        rule: "a VIRTIO_VSOCK_OP_RST reply is sent if a listening socket does not exist on the \
               destination",
        needs: &[VSOCK, CONFIG],
        run: nobody_listens,
    },
    Check {
        name: "vsock.reply-addresses",
        level: Level::Should,
        source: Source::Virtio("5.10.6.2 Addressing"),
        rule: "flows are identified by a (source, destination) address tuple: a reply has those \
               of the request, the other way round, its type, and no payload",
        needs: &[VSOCK, CONFIG],
        run: reply_addresses,
    },
    Check {
        name: "vsock.no-receive-buffers",
        level: Level::Must,
        source: Source::Virtio(
            "5.10.6.1.2 Device Requirements: Device Operation: Virtqueue Flow Control",
        ),
        rule: "the tx virtqueue MUST be processed even when the rx virtqueue is full so long as \
               there are additional resources available: one packet whose reply has no buffer",
        needs: &[VSOCK, CONFIG],
        run: no_receive_buffers,
    },
    Check {
        name: "vsock.short-header",
        level: Level::Should,
        source: Source::Virtio("5.10.6 Device Operation"),
        rule: "packets begin with struct virtio_vsock_hdr: one with 20 bytes harms nobody, and \
               the next is served",
        needs: &[VSOCK, CONFIG, Need::Reconnects],
        run: short_header,
    },
    Check {
        name: "vsock.overlong-length",
        level: Level::Should,
        source: Source::Virtio("5.10.6 Device Operation"),
        rule: "len is the size of the payload: a packet whose payload is not there harms nobody, \
               and the next is served",
        needs: &[VSOCK, CONFIG, Need::Reconnects],
        run: overlong_length,
    },
    Check {
        name: "vsock.event-buffers-are-kept",
        level: Level::Should,
        source: Source::Virtio("5.10.6.7 Device Events"),
        rule: "events are communicated on the event virtqueue, and only \
               VIRTIO_VSOCK_EVENT_TRANSPORT_RESET is defined: no buffer is used for anything else",
        needs: &[VSOCK, Need::Queues(EVENTS + 1)],
        run: event_buffers,
    },
];

const RX: usize = 0;
const TX: usize = 1;
const EVENTS: usize = 2;

const HOST: u64 = 2;
/// A port that nobody listens on, by all likelihood.
const PORT: u32 = 0x7fff_fff0;
const GUEST_PORT: u32 = 1234;

const F_NO_IMPLIED_STREAM: u32 = 2;
const STREAM: u16 = 1;
const OP_REQUEST: u16 = 1;
const OP_RST: u64 = 3;
const OP_RW: u16 = 5;

fn packet(cid: u64, kind: u16, operation: u16, len: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(cid.to_le_bytes());
    bytes.extend(HOST.to_le_bytes());
    bytes.extend(GUEST_PORT.to_le_bytes());
    bytes.extend(PORT.to_le_bytes());
    bytes.extend(len.to_le_bytes());
    bytes.extend(kind.to_le_bytes());
    bytes.extend(operation.to_le_bytes());
    // No flags; 64 KiB of buffer, of which nothing is used.
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(0x1_0000u32.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes
}

/// A session with its CID.
fn start(bench: &Bench) -> Result<(Session, u64), Fault> {
    let (session, config) = configured(bench, 8)?;
    Ok((session, config.number::<8>(0)))
}

/// Sends a packet, and returns the first one that comes back.
fn converse(session: &mut Session, packet: &[u8]) -> Result<Vec<u8>, Fault> {
    let buffers = Buffers::place(session.memory(), &[], 4096)?;
    session.queue_mut(RX).submit(buffers.chain())?;
    exchange(session, TX, packet, 0)?;
    session.queue_mut(RX).wait_used()?;
    Ok(buffers.finish(session.memory())?)
}

fn is_reset(reply: &[u8]) -> Verdict {
    let operation = number::<2>(reply, 30);
    demand(operation == OP_RST, || {
        format!("the operation of the reply is {operation}, and VIRTIO_VSOCK_OP_RST is {OP_RST}")
    })
}

fn guest_cid(bench: &Bench) -> Verdict {
    let (_, cid) = start(bench)?;
    demand(cid > HOST && cid < u32::MAX.into(), || {
        format!("guest_cid is {cid:#x}")
    })
}

fn no_implied_stream(bench: &Bench) -> Verdict {
    demand(bench.profile().has(F_NO_IMPLIED_STREAM), || {
        "it is not offered".into()
    })
}

fn unknown_type(bench: &Bench) -> Verdict {
    let (mut session, cid) = start(bench)?;
    is_reset(&converse(
        &mut session,
        &packet(cid, 0x7ff0, OP_REQUEST, 0),
    )?)
}

fn nobody_listens(bench: &Bench) -> Verdict {
    let (mut session, cid) = start(bench)?;
    is_reset(&converse(
        &mut session,
        &packet(cid, STREAM, OP_REQUEST, 0),
    )?)
}

fn reply_addresses(bench: &Bench) -> Verdict {
    let (mut session, cid) = start(bench)?;
    let reply = match converse(&mut session, &packet(cid, STREAM, OP_REQUEST, 0)) {
        Err(Fault::Driver(DriverError::NotUsed { .. })) => {
            return Err(Fault::skip("no reply comes, as vsock.nobody-listens says"));
        }
        reply => reply?,
    };
    let found = (
        (number::<8>(&reply, 0), number::<4>(&reply, 16)),
        (number::<8>(&reply, 8), number::<4>(&reply, 20)),
        number::<2>(&reply, 28),
        number::<4>(&reply, 24),
    );
    let wanted = (
        (HOST, PORT.into()),
        (cid, GUEST_PORT.into()),
        STREAM.into(),
        0,
    );
    demand(found == wanted, || {
        format!("source, destination, type and len are {found:?} in place of {wanted:?}")
    })
}

fn no_receive_buffers(bench: &Bench) -> Verdict {
    let (mut session, cid) = start(bench)?;
    exchange(&mut session, TX, &packet(cid, STREAM, OP_REQUEST, 0), 0)?;
    Ok(())
}

/// What is no packet may be left alone, or end the connection; the next session is served.
fn harms_nobody(bench: &Bench, bad: impl Fn(u64) -> Vec<u8>) -> Verdict {
    let (mut session, cid) = start(bench)?;
    let buffers = Buffers::place(session.memory(), &bad(cid), 0)?;
    session.queue_mut(TX).submit(buffers.chain())?;
    session.queue(TX).is_notified_within(QUIET)?;
    // A backend that is still there has seen the kick by the time it answers.
    session.frontend().is_served();
    drop(session);
    no_receive_buffers(bench)
}

fn short_header(bench: &Bench) -> Verdict {
    harms_nobody(bench, |cid| {
        packet(cid, STREAM, OP_REQUEST, 0)[..20].to_vec()
    })
}

fn overlong_length(bench: &Bench) -> Verdict {
    harms_nobody(bench, |cid| packet(cid, STREAM, OP_RW, u32::MAX))
}

fn event_buffers(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup().queues(EVENTS + 1, 64))?;
    let buffers = Buffers::place(session.memory(), &[], 4)?;
    session.queue_mut(EVENTS).submit(buffers.chain())?;
    session.queue(EVENTS).is_notified_within(QUIET)?;
    if session.queue_mut(EVENTS).poll_used()?.is_none() {
        return Ok(());
    }
    let event = number::<4>(&buffers.finish(session.memory())?, 0);
    demand(event == 0, || format!("event {event} was reported"))
}
