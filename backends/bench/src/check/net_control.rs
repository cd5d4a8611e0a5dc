//! The control queue of network interfaces (virtio 1.4, section 5.1.9.5).

use std::time::Duration;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_RX_EXTRA,
    VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MQ,
};

use super::bench::Bench;
use super::exchange::{Config, exchange};
use super::net::{CONFIG, MAC, MQ, NET};
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Buffers, DriverError, Session};

const CONTROL: Need = Need::Feature(VIRTIO_NET_F_CTRL_VQ, "VIRTIO_NET_F_CTRL_VQ");
const RX: Need = Need::Feature(VIRTIO_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX");
const RX_EXTRA: Need = Need::Feature(VIRTIO_NET_F_CTRL_RX_EXTRA, "VIRTIO_NET_F_CTRL_RX_EXTRA");
const VLAN: Need = Need::Feature(VIRTIO_NET_F_CTRL_VLAN, "VIRTIO_NET_F_CTRL_VLAN");
const MAC_ADDR: Need = Need::Feature(VIRTIO_NET_F_CTRL_MAC_ADDR, "VIRTIO_NET_F_CTRL_MAC_ADDR");
/// A frontend may keep the control queue to itself, and then the backend has no ring for it.
const THREE: Need = Need::Queues(3);
const COMMANDS: Source = Source::Virtio("5.1.9.5 Control Virtqueue");
const FILTERING: Source = Source::Virtio("5.1.9.5.1 Packet Receive Filtering");
const MULTIQUEUE: Source =
    Source::Virtio("5.1.9.5.6 Automatic receive steering in multiqueue mode");

pub const CHECKS: &[Check] = &[
    Check {
        name: "net.control-unknown",
        level: Level::Should,
        source: COMMANDS,
        rule: "the ack byte is set by the device: VIRTIO_NET_ERR for a class that nobody has \
               defined",
        needs: &[NET, CONTROL, THREE],
        run: unknown,
    },
    Check {
        name: "net.control-short",
        level: Level::Should,
        source: COMMANDS,
        rule: "a command has a class, a command, and its data: one without data is answered by \
               VIRTIO_NET_ERR, and the next is served",
        needs: &[NET, CONTROL, RX, THREE],
        run: short,
    },
    Check {
        name: "net.control-receive-mode",
        level: Level::Must,
        source: FILTERING,
        rule: "if the VIRTIO_NET_F_CTRL_RX feature has been negotiated, the device MUST support \
               VIRTIO_NET_CTRL_RX_PROMISC and VIRTIO_NET_CTRL_RX_ALLMULTI",
        needs: &[NET, CONTROL, RX, THREE],
        run: |bench| receive_modes(bench, VIRTIO_NET_F_CTRL_RX, &[0, 1]),
    },
    Check {
        name: "net.control-receive-mode-extra",
        level: Level::Must,
        source: FILTERING,
        rule: "if the VIRTIO_NET_F_CTRL_RX_EXTRA feature has been negotiated, the device MUST \
               support ALLUNI, NOMULTI, NOUNI and NOBCAST",
        needs: &[NET, CONTROL, RX_EXTRA, THREE],
        run: |bench| receive_modes(bench, VIRTIO_NET_F_CTRL_RX_EXTRA, &[2, 3, 4, 5]),
    },
    Check {
        name: "net.control-mac",
        level: Level::Must,
        source: Source::Virtio("5.1.9.5.2 Setting MAC Address Filtering"),
        rule: "the device MUST update mac in config space before it consumes the \
               VIRTIO_NET_CTRL_MAC_ADDR_SET command, if VIRTIO_NET_F_MAC has been negotiated",
        needs: &[NET, CONFIG, CONTROL, MAC, MAC_ADDR, THREE],
        run: set_mac,
    },
    Check {
        name: "net.control-mac-table",
        level: Level::Should,
        source: Source::Virtio("5.1.9.5.2 Setting MAC Address Filtering"),
        rule: "VIRTIO_NET_CTRL_MAC_TABLE_SET has two tables, each with its number of entries: one \
               that announces more than it has is answered by VIRTIO_NET_ERR",
        needs: &[NET, CONTROL, RX, THREE],
        run: mac_table,
    },
    Check {
        name: "net.control-vlan",
        level: Level::Should,
        source: Source::Virtio("5.1.9.5.3 VLAN Filtering"),
        rule: "VIRTIO_NET_CTRL_VLAN_ADD and _DEL take an identifier below 4096",
        needs: &[NET, CONTROL, VLAN, THREE],
        run: vlan,
    },
    Check {
        name: "net.control-pairs",
        level: Level::Should,
        source: MULTIQUEUE,
        rule: "VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET specifies the number of the queues to be used, up \
               to max_virtqueue_pairs: 1 and the maximum are taken",
        needs: &[NET, CONFIG, CONTROL, MQ, THREE],
        run: pairs,
    },
    Check {
        name: "net.control-bad-pairs",
        level: Level::Should,
        source: MULTIQUEUE,
        rule: "0 pairs, or more than max_virtqueue_pairs, which no driver may request, are \
               answered by VIRTIO_NET_ERR",
        needs: &[NET, CONFIG, CONTROL, MQ, THREE],
        run: bad_pairs,
    },
];

const ERR: u8 = 1;
const OK: u8 = 0;

const CLASS_RX: u8 = 0;
const CLASS_MAC: u8 = 1;
const CLASS_VLAN: u8 = 2;
const CLASS_MQ: u8 = 4;

const MAC_TABLE_SET: u8 = 0;
const MAC_ADDR_SET: u8 = 1;

/// How long a device may take to take a command that it knows.
const SERVED: Duration = Duration::from_secs(1);

/// Whether the backend serves its control queue. It has no way to say so: with QEMU the frontend
/// does, and backends made for that (DPDK's) offer the feature and leave the ring alone.
fn is_served(session: &mut Session, queue: usize) -> Verdict {
    let buffers = Buffers::place(session.memory(), &[CLASS_RX, 0, 0], 1)?;
    session.queue_mut(queue).submit(buffers.chain())?;
    match session.queue_mut(queue).wait_used_within(SERVED) {
        Err(DriverError::NotUsed { .. }) => Err(Fault::skip(
            "it leaves the control queue alone, which is the frontend's with QEMU",
        )),
        used => Ok(used.map(drop)?),
    }
}

/// A session with a control queue, and the index of that: behind the pairs there are, of which
/// there is one where MQ is not negotiated (section 5.1.2).
fn start(bench: &Bench, features: &[u32]) -> Result<(Session, usize), Fault> {
    let has_pairs = features.contains(&VIRTIO_NET_F_MQ);
    let queues = if has_pairs { bench.profile().queues } else { 3 };
    let setup = bench.setup().queues(queues, 64);
    let setup = setup.require(&[VIRTIO_NET_F_CTRL_VQ]).require(features);
    let mut session = bench.start(&setup)?;
    if !has_pairs {
        is_served(&mut session, 2)?;
        return Ok((session, 2));
    }
    let control = 2 * max_pairs(&mut session)? as usize;
    if control >= queues {
        return Err(Fault::skip(format!(
            "the control queue is number {control}, and the backend has {queues} queues"
        )));
    }
    is_served(&mut session, control)?;
    Ok((session, control))
}

fn max_pairs(session: &mut Session) -> Result<u64, Fault> {
    Ok(Config::read(session, 10)?.number::<2>(8))
}

/// The ack byte of a command.
fn command(session: &mut Session, queue: usize, bytes: &[u8]) -> Result<u8, Fault> {
    Ok(exchange(session, queue, bytes, 1)?.bytes[0])
}

fn expect(ack: u8, wanted: u8, what: &str) -> Verdict {
    demand(ack == wanted, || {
        format!("{what}: the ack byte is {ack:#x} in place of {wanted}")
    })
}

fn unknown(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[])?;
    let ack = command(&mut session, queue, &[0xee, 0, 0])?;
    expect(ack, ERR, "class 0xee")
}

fn short(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_CTRL_RX])?;
    let ack = command(&mut session, queue, &[CLASS_RX, 0])?;
    expect(ack, ERR, "VIRTIO_NET_CTRL_RX_PROMISC without data")?;
    let ack = command(&mut session, queue, &[CLASS_RX, 0, 1])?;
    expect(ack, OK, "VIRTIO_NET_CTRL_RX_PROMISC")
}

fn receive_modes(bench: &Bench, feature: u32, modes: &[u8]) -> Verdict {
    let (mut session, queue) = start(bench, &[feature])?;
    for mode in modes {
        for on in [1, 0] {
            let ack = command(&mut session, queue, &[CLASS_RX, *mode, on])?;
            expect(
                ack,
                OK,
                &format!("VIRTIO_NET_CTRL_RX command {mode} with {on}"),
            )?;
        }
    }
    Ok(())
}

fn set_mac(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_MAC, VIRTIO_NET_F_CTRL_MAC_ADDR])?;
    let before = Config::read(&mut session, 6)?.bytes().to_vec();
    let mac = [2, 0xab, 0xcd, 1, 2, 3];
    let set = |mac: &[u8]| [&[CLASS_MAC, MAC_ADDR_SET], mac].concat();
    let ack = command(&mut session, queue, &set(&mac))?;
    let after = Config::read(&mut session, 6)?.bytes().to_vec();
    command(&mut session, queue, &set(&before))?;
    expect(ack, OK, "VIRTIO_NET_CTRL_MAC_ADDR_SET")?;
    demand(after == mac, || {
        format!("mac is {after:02x?} in place of {mac:02x?}")
    })
}

fn mac_table(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_CTRL_RX])?;
    let mut good = vec![CLASS_MAC, MAC_TABLE_SET, 1, 0, 0, 0];
    good.extend([2, 0, 0, 0, 0, 7]);
    good.extend([0; 4]);
    let ack = command(&mut session, queue, &good)?;
    expect(ack, OK, "VIRTIO_NET_CTRL_MAC_TABLE_SET")?;
    let mut bad = vec![CLASS_MAC, MAC_TABLE_SET, 0xff, 0xff, 0xff, 0xff];
    bad.extend([2, 0, 0, 0, 0, 7]);
    let ack = command(&mut session, queue, &bad)?;
    expect(ack, ERR, "a table that announces 2^32 - 1 entries")
}

fn vlan(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_CTRL_VLAN])?;
    for what in [0, 1] {
        let ack = command(&mut session, queue, &[CLASS_VLAN, what, 42, 0])?;
        expect(ack, OK, &format!("VIRTIO_NET_CTRL_VLAN command {what}"))?;
    }
    let ack = command(&mut session, queue, &[CLASS_VLAN, 0, 0, 0x10])?;
    expect(ack, ERR, "VLAN 4096")
}

fn set_pairs(session: &mut Session, queue: usize, pairs: u64) -> Result<u8, Fault> {
    let [low, high, ..] = pairs.to_le_bytes();
    command(session, queue, &[CLASS_MQ, 0, low, high])
}

fn pairs(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_MQ])?;
    for pairs in [max_pairs(&mut session)?, 1] {
        let ack = set_pairs(&mut session, queue, pairs)?;
        expect(ack, OK, &format!("{pairs} pairs"))?;
    }
    Ok(())
}

fn bad_pairs(bench: &Bench) -> Verdict {
    let (mut session, queue) = start(bench, &[VIRTIO_NET_F_MQ])?;
    for pairs in [0, max_pairs(&mut session)? + 1] {
        let ack = set_pairs(&mut session, queue, pairs)?;
        expect(ack, ERR, &format!("{pairs} pairs"))?;
    }
    Ok(())
}
