//! Reception of network interfaces (virtio 1.4, section 5.1.9.4).
//!
//! Frames have to come from somewhere: the driver asks who is there, by DHCP and by ARP. Where
//! nobody answers these checks do not apply.

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_MRG_RXBUF,
};

use super::bench::Bench;
use super::exchange::{UNWRITTEN, exchange, number};
use super::net::{HEADER, NET, RECEIVE, TRANSMIT};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Buffers, QUIET, Session, Setup};

const INCOMING: Source =
    Source::Virtio("5.1.9.4.1 Device Requirements: Processing of Incoming Packets");
const MERGE: Need = Need::Feature(VIRTIO_NET_F_MRG_RXBUF, "VIRTIO_NET_F_MRG_RXBUF");

pub const CHECKS: &[Check] = &[
    Check {
        name: "net.receive-one-buffer",
        level: Level::Must,
        source: INCOMING,
        rule: "if VIRTIO_NET_F_MRG_RXBUF has not been negotiated, the device MUST set num_buffers \
               to 1",
        needs: &[NET],
        run: |bench| one_buffer(bench, false),
    },
    Check {
        name: "net.receive-merged",
        level: Level::Must,
        source: INCOMING,
        rule: "if VIRTIO_NET_F_MRG_RXBUF has been negotiated, the device MUST set num_buffers to \
               indicate the number of buffers the packet is spread over: 1 of 2 KiB",
        needs: &[NET, MERGE],
        run: |bench| one_buffer(bench, true),
    },
    Check {
        name: "net.receive-spread",
        level: Level::Must,
        source: INCOMING,
        rule: "the device MUST use all buffers used by a single receive packet together, such \
               that at least num_buffers are observed by driver as used: of 64 bytes each",
        needs: &[NET, MERGE],
        run: spread,
    },
    Check {
        name: "net.receive-flags",
        level: Level::Must,
        source: INCOMING,
        rule: "if VIRTIO_NET_F_GUEST_CSUM is not negotiated, the device MUST set flags to zero",
        needs: &[NET],
        run: flags,
    },
    Check {
        name: "net.receive-no-segmentation",
        level: Level::Must,
        source: INCOMING,
        rule: "if none of the VIRTIO_NET_F_GUEST_TSO4, TSO6, UFO, USO4 or USO6 options have been \
               negotiated, the device MUST set gso_type to VIRTIO_NET_HDR_GSO_NONE",
        needs: &[NET],
        run: no_segmentation,
    },
];

/// What the device may do to packets only where the driver agrees.
const OFFLOADS: &[u32] = &[
    VIRTIO_NET_F_GUEST_CSUM,
    VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_GUEST_ECN,
    VIRTIO_NET_F_GUEST_UFO,
    VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6,
];

/// Our own address on the network.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn ethernet(kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend([0xff; 6]);
    bytes.extend(MAC);
    bytes.extend(kind);
    bytes.extend(body);
    bytes.resize(bytes.len().max(HEADER + 60), 0);
    bytes
}

/// Who has 10.0.2.2 (RFC 826)? A user-mode network answers for any address.
fn arp() -> Vec<u8> {
    let mut body = vec![0, 1, 8, 0, 6, 4, 0, 1];
    body.extend(MAC);
    body.extend([10, 0, 2, 15]);
    body.extend([0; 6]);
    body.extend([10, 0, 2, 2]);
    ethernet([8, 6], &body)
}

/// DHCPDISCOVER (RFC 2131), without a UDP checksum.
fn dhcp() -> Vec<u8> {
    let mut message = vec![1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78];
    message.resize(28, 0);
    message.extend(MAC);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63, 53, 1, 1, 255]);
    message.resize(300, 0);
    let udp_len = (8 + message.len()) as u16;
    let mut body = vec![0x45, 0];
    body.extend((20 + udp_len).to_be_bytes());
    body.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    body.extend([0; 4]);
    body.extend([255; 4]);
    let sum = checksum(&body);
    body[10..12].copy_from_slice(&sum.to_be_bytes());
    body.extend([0, 68, 0, 67]);
    body.extend(udp_len.to_be_bytes());
    body.extend([0, 0]);
    body.extend(message);
    ethernet([8, 0], &body)
}

/// Of an IPv4 header (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Receive buffers with the device, by number.
struct Inbox(Vec<(u16, Buffers)>);

impl Inbox {
    fn fill(session: &mut Session, count: usize, size: u32) -> Result<Self, Fault> {
        let mut buffers = Vec::new();
        for _ in 0..count {
            let one = Buffers::place(session.memory(), &[], size)?;
            one.refill(session.memory(), UNWRITTEN)?;
            buffers.push((session.queue_mut(RECEIVE).submit(one.chain())?, one));
        }
        Ok(Self(buffers))
    }

    /// The next buffer that comes within a while: its bytes, as many as are used.
    fn next(&self, session: &mut Session) -> Result<Option<Vec<u8>>, Fault> {
        session.queue(RECEIVE).is_notified_within(QUIET)?;
        let Some(used) = session.queue_mut(RECEIVE).poll_used()? else {
            return Ok(None);
        };
        let known = self.0.iter().find(|(id, _)| *id == used.id);
        let (_, buffers) = known.ok_or_else(|| Fault::broken("an unknown buffer was used"))?;
        let mut bytes = buffers.finish(session.memory())?;
        bytes.truncate(used.len.map_or(bytes.len(), |len| len as usize));
        Ok(Some(bytes))
    }
}

/// Asks until somebody answers; returns the buffer in which the answer begins.
fn provoke(session: &mut Session, inbox: &Inbox) -> Result<Vec<u8>, Fault> {
    for _ in 0..5 {
        for question in [arp(), dhcp()] {
            exchange(session, TRANSMIT, &question, 0)?;
            if let Some(bytes) = inbox.next(session)? {
                return Ok(bytes);
            }
        }
    }
    Err(Fault::skip(
        "nobody on the device's network answers ARP or DHCP",
    ))
}

fn setup(bench: &Bench, merge: bool) -> Setup {
    let setup = bench.setup().without(OFFLOADS);
    match merge {
        true => setup.require(&[VIRTIO_NET_F_MRG_RXBUF]),
        false => setup.without(&[VIRTIO_NET_F_MRG_RXBUF]),
    }
}

/// The first buffer of a packet that came in, of `size` bytes or less.
fn receive(bench: &Bench, setup: &Setup) -> Result<Vec<u8>, Fault> {
    let mut session = bench.start(setup)?;
    let inbox = Inbox::fill(&mut session, 8, 2048)?;
    let bytes = provoke(&mut session, &inbox)?;
    demand(bytes.len() >= HEADER, || {
        format!(
            "a receive buffer has {} bytes, and the header 12",
            bytes.len()
        )
    })?;
    Ok(bytes)
}

fn num_buffers(bytes: &[u8]) -> u64 {
    number::<2>(bytes, 10)
}

fn one_buffer(bench: &Bench, merge: bool) -> Verdict {
    let bytes = receive(bench, &setup(bench, merge))?;
    let count = num_buffers(&bytes);
    demand(count == 1, || format!("num_buffers is {count}"))
}

fn spread(bench: &Bench) -> Verdict {
    let mut session = bench.start(&setup(bench, true))?;
    let inbox = Inbox::fill(&mut session, 48, 64)?;
    let first = provoke(&mut session, &inbox)?;
    let count = num_buffers(&first);
    demand((1..=48).contains(&count), || {
        format!("num_buffers is {count}")
    })?;
    for n in 1..count {
        let next = inbox.next(&mut session)?;
        demand(next.is_some(), || {
            format!("num_buffers is {count}, and {n} were used")
        })?;
    }
    Ok(())
}

fn flags(bench: &Bench) -> Verdict {
    let bytes = receive(bench, &setup(bench, false))?;
    demand(bytes[0] == 0, || format!("flags are {:#x}", bytes[0]))
}

fn no_segmentation(bench: &Bench) -> Verdict {
    let bytes = receive(bench, &setup(bench, false))?;
    demand(bytes[1] == 0, || format!("gso_type is {:#x}", bytes[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_questions_add_up() {
        let packet = dhcp();
        let header = &packet[HEADER + 14..HEADER + 34];
        assert_eq!(checksum(header), 0);
        assert_eq!(
            usize::from(header[2]) << 8 | usize::from(header[3]),
            packet.len() - HEADER - 14
        );
    }
}
