//! Network interfaces: features, configuration space and transmission (virtio 1.4, section 5.1).

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_ECN, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_USO4,
    VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
    VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
    VIRTIO_NET_F_MTU,
};

use super::bench::Bench;
use super::exchange::{configured, exchange, started};
use super::ring::no_stray;
use super::types::{Check, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, QUIET};

pub const NET: Need = Need::Type(DeviceType::NET);
pub const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
pub const MAC: Need = Need::Feature(VIRTIO_NET_F_MAC, "VIRTIO_NET_F_MAC");
pub const MQ: Need = Need::Feature(VIRTIO_NET_F_MQ, "VIRTIO_NET_F_MQ");
const MTU: Need = Need::Feature(VIRTIO_NET_F_MTU, "VIRTIO_NET_F_MTU");
const CSUM: Need = Need::Feature(VIRTIO_NET_F_CSUM, "VIRTIO_NET_F_CSUM");
const LAYOUT: Source = Source::Virtio("5.1.4.1 Device Requirements: Device configuration layout");
const TRANSMISSION: Source = Source::Virtio("5.1.9.2 Packet Transmission");

pub const CHECKS: &[Check] = &[
    Check {
        name: "net.offload-dependencies",
        level: Level::Must,
        source: Source::Virtio("2.2.2 Device Requirements: Feature Bits"),
        rule: "the device MUST NOT offer a feature which requires another feature which was not \
               offered: segmentation requires checksums (5.1.3.1 Feature bit requirements)",
        needs: &[NET],
        run: offload_dependencies,
    },
    Check {
        name: "net.mac",
        level: Level::Should,
        source: Source::Virtio("5.1.4 Device configuration layout"),
        rule: "the mac address field is valid if VIRTIO_NET_F_MAC is set: neither zero nor that \
               of a group",
        needs: &[NET, CONFIG, MAC],
        run: mac,
    },
    Check {
        name: "net.mtu",
        level: Level::Must,
        source: LAYOUT,
        rule: "the device MUST set mtu to between 68 and 65535 inclusive, if it offers \
               VIRTIO_NET_F_MTU",
        needs: &[NET, CONFIG, MTU],
        run: |bench| mtu(bench, 68),
    },
    Check {
        name: "net.mtu-for-ipv6",
        level: Level::Should,
        source: LAYOUT,
        rule: "the device SHOULD set mtu to at least 1280, if it offers VIRTIO_NET_F_MTU",
        needs: &[NET, CONFIG, MTU],
        run: |bench| mtu(bench, 1280),
    },
    Check {
        name: "net.queue-pairs",
        level: Level::Must,
        source: LAYOUT,
        rule: "the device MUST set max_virtqueue_pairs to between 1 and 0x8000 inclusive, if it \
               offers VIRTIO_NET_F_MQ",
        needs: &[NET, CONFIG, MQ],
        run: queue_pairs,
    },
    Check {
        name: "net.transmit",
        level: Level::Should,
        source: TRANSMISSION,
        rule: "the header and packet are added as one output descriptor to the transmitq: frames \
               of 14, 60 and 1514 bytes are used",
        needs: &[NET],
        run: transmit,
    },
    Check {
        name: "net.transmit-framing",
        level: Level::Should,
        source: Source::Virtio("2.7.4.1 Device Requirements: Message Framing"),
        rule: "the device MAY have a reasonable limit of descriptors it will allow in a chain: a \
               header in two of them, and a frame in three, are not beyond it",
        needs: &[NET],
        run: transmit_framing,
    },
    Check {
        name: "net.transmit-unknown-flag",
        level: Level::Must,
        source: Source::Virtio("5.1.9.2.2 Device Requirements: Packet Transmission"),
        rule: "the device MUST ignore flag bits that it does not recognize",
        needs: &[NET],
        run: unknown_flag,
    },
    Check {
        name: "net.transmit-is-not-written",
        level: Level::Must,
        source: Source::Virtio("2.7.5.1 Device Requirements: The Virtqueue Descriptor Table"),
        rule: "a device MUST NOT write to a device-readable buffer: what is sent stays as it is",
        needs: &[NET],
        run: transmit_untouched,
    },
    Check {
        name: "net.transmit-bad-checksum-place",
        level: Level::Should,
        source: TRANSMISSION,
        rule: "csum_start and csum_offset are a place in the packet: one behind its end harms \
               nobody, and the next packet is used",
        needs: &[NET, CSUM, Need::Reconnects],
        run: bad_checksum_place,
    },
    Check {
        name: "net.transmit-short-header",
        level: Level::Should,
        source: TRANSMISSION,
        rule: "each packet is preceded by a header: a buffer with 5 bytes of it harms nobody, and \
               the next packet is used",
        needs: &[NET, Need::Reconnects],
        run: short_header,
    },
    Check {
        name: "net.transmit-no-frame",
        level: Level::Should,
        source: TRANSMISSION,
        rule: "the packet follows the header: a header without one harms nobody, and the next \
               packet is used",
        needs: &[NET, Need::Reconnects],
        run: no_frame,
    },
    Check {
        name: "net.transmit-huge",
        level: Level::Should,
        source: TRANSMISSION,
        rule: "a packet of 128 KiB, which no feature allows, harms nobody, and the next packet is \
               used",
        needs: &[NET, Need::Reconnects],
        run: huge,
    },
];

pub const RECEIVE: usize = 0;
pub const TRANSMIT: usize = 1;

/// Bytes of struct virtio_net_hdr without a hash report (section 5.1.9).
pub const HEADER: usize = 12;

const NEEDS_CSUM: u8 = 1;

/// A header, and a frame of `len` bytes to everybody, of the EtherType of local experiments.
fn packet(flags: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0] = flags;
    bytes.extend([0xff; 6]);
    bytes.extend([2, 0, 0, 0, 0, 1]);
    bytes.extend([0x88, 0xb5]);
    bytes.resize(HEADER + len, 0);
    bytes
}

/// Each feature, and those of which it requires one (section 5.1.3.1).
const DEPENDENCIES: &[(u32, &[u32])] = &[
    (VIRTIO_NET_F_GUEST_TSO4, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_TSO6, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_UFO, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_USO4, &[VIRTIO_NET_F_GUEST_CSUM]),
    (VIRTIO_NET_F_GUEST_USO6, &[VIRTIO_NET_F_GUEST_CSUM]),
    (
        VIRTIO_NET_F_GUEST_ECN,
        &[VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6],
    ),
    (VIRTIO_NET_F_HOST_TSO4, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_TSO6, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_UFO, &[VIRTIO_NET_F_CSUM]),
    (VIRTIO_NET_F_HOST_USO, &[VIRTIO_NET_F_CSUM]),
    (
        VIRTIO_NET_F_HOST_ECN,
        &[VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6],
    ),
];

fn offload_dependencies(bench: &Bench) -> Verdict {
    let offers = |feature: &u32| bench.profile().has(*feature);
    for (feature, any) in DEPENDENCIES {
        demand(!offers(feature) || any.iter().any(offers), || {
            format!("feature {feature} is offered, and it requires one of {any:?}")
        })?;
    }
    Ok(())
}

fn mac(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 6)?;
    let mac = config.bytes();
    let is_group = mac[0] & 1 != 0;
    demand(!is_group && mac.iter().any(|byte| *byte != 0), || {
        format!("mac is {mac:02x?}")
    })
}

fn mtu(bench: &Bench, least: u64) -> Verdict {
    let (_, config) = configured(bench, 12)?;
    let mtu = config.number::<2>(10);
    demand(mtu >= least, || format!("mtu is {mtu}"))
}

fn queue_pairs(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench, 10)?;
    let pairs = config.number::<2>(8);
    demand((1..=0x8000).contains(&pairs), || {
        format!("max_virtqueue_pairs is {pairs}")
    })
}

fn transmit(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for len in [14, 60, 1514] {
        exchange(&mut session, TRANSMIT, &packet(0, len), 0)?;
    }
    Ok(())
}

fn transmit_framing(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let buffers = Buffers::place(session.memory(), &packet(0, 60), 0)?;
    let pieces = buffers.split(&[1, 11, 14, 1], &[]);
    session.queue_mut(TRANSMIT).run(&pieces)?;
    Ok(())
}

fn unknown_flag(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    exchange(&mut session, TRANSMIT, &packet(0x80, 60), 0)?;
    exchange(&mut session, TRANSMIT, &packet(0, 60), 0)?;
    Ok(())
}

fn transmit_untouched(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    exchange(&mut session, TRANSMIT, &packet(0, 60), 0)?;
    no_stray(&session)
}

/// What is no packet may be left alone, or end the connection; the next session is served.
fn harms_nobody(bench: &Bench, bytes: &[u8]) -> Verdict {
    let mut session = started(bench)?;
    let buffers = Buffers::place(session.memory(), bytes, 0)?;
    session.queue_mut(TRANSMIT).submit(buffers.chain())?;
    session.queue(TRANSMIT).is_notified_within(QUIET)?;
    // A backend that is still there has seen the kick by the time it answers.
    session.frontend().is_served();
    drop(session);
    exchange(&mut started(bench)?, TRANSMIT, &packet(0, 60), 0)?;
    Ok(())
}

fn bad_checksum_place(bench: &Bench) -> Verdict {
    for (start, offset) in [(0xffffu16, 0xffffu16), (60, 0), (59, 0)] {
        let mut bytes = packet(NEEDS_CSUM, 60);
        bytes[6..8].copy_from_slice(&start.to_le_bytes());
        bytes[8..10].copy_from_slice(&offset.to_le_bytes());
        harms_nobody(bench, &bytes)?;
    }
    Ok(())
}

fn short_header(bench: &Bench) -> Verdict {
    harms_nobody(bench, &packet(0, 60)[..5])
}

fn no_frame(bench: &Bench) -> Verdict {
    harms_nobody(bench, &packet(0, 0)[..HEADER])
}

fn huge(bench: &Bench) -> Verdict {
    harms_nobody(bench, &packet(0, 128 << 10))
}
