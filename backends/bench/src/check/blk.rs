//! Block devices (virtio 1.4, section 5.2).
//!
//! What is written is put back afterwards.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::GetConfig;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH,
    VIRTIO_BLK_F_MQ, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::bench::Bench;
use super::ring::no_stray;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, Session};

const BLK: Need = Need::Type(DeviceType::BLK);
const CONFIG: Need = Need::Protocol(Protocol::CONFIG);
const DISCARD: Need = Need::Feature(VIRTIO_BLK_F_DISCARD, "VIRTIO_BLK_F_DISCARD");
const ZEROES: Need = Need::Feature(VIRTIO_BLK_F_WRITE_ZEROES, "VIRTIO_BLK_F_WRITE_ZEROES");
const FLUSH: Need = Need::Feature(VIRTIO_BLK_F_FLUSH, "VIRTIO_BLK_F_FLUSH");
const OPERATION: Source = Source::Virtio("5.2.6.2 Device Requirements: Device Operation");
const INITIALIZATION: Source = Source::Virtio("5.2.5.2 Device Requirements: Device Initialization");

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.flush-offered",
        level: Level::Should,
        source: INITIALIZATION,
        rule: "devices SHOULD always offer VIRTIO_BLK_F_FLUSH",
        needs: &[BLK],
        run: flush_offered,
    },
    Check {
        name: "blk.wce-needs-flush",
        level: Level::Must,
        source: INITIALIZATION,
        rule: "devices MUST offer VIRTIO_BLK_F_FLUSH if they offer VIRTIO_BLK_F_CONFIG_WCE",
        needs: &[
            BLK,
            Need::Feature(VIRTIO_BLK_F_CONFIG_WCE, "VIRTIO_BLK_F_CONFIG_WCE"),
        ],
        run: wce_needs_flush,
    },
    Check {
        name: "blk.config-padding",
        level: Level::Must,
        source: INITIALIZATION,
        rule: "the device MUST initialize padding bytes unused0 and unused1 to 0",
        needs: &[BLK, CONFIG],
        run: config_padding,
    },
    Check {
        name: "blk.block-size",
        level: Level::Should,
        source: Source::Virtio("5.2.4 Device configuration layout"),
        rule: "blk_size is the block size of the disk: a power of 2, of 512 bytes or more",
        needs: &[
            BLK,
            CONFIG,
            Need::Feature(VIRTIO_BLK_F_BLK_SIZE, "VIRTIO_BLK_F_BLK_SIZE"),
        ],
        run: block_size,
    },
    Check {
        name: "blk.num-queues",
        level: Level::Must,
        source: Source::Virtio("5.2.4 Device configuration layout"),
        rule: "num_queues specifies the number of queues: there is one at least, and not more \
               than GET_QUEUE_NUM returns",
        needs: &[
            BLK,
            CONFIG,
            Need::Feature(VIRTIO_BLK_F_MQ, "VIRTIO_BLK_F_MQ"),
        ],
        run: num_queues,
    },
    Check {
        name: "blk.last-sector",
        level: Level::Must,
        source: Source::Virtio("5.2.4 Device configuration layout"),
        rule: "the capacity of the device is in 512-byte sectors: its last block can be read",
        needs: &[BLK, CONFIG],
        run: last_sector,
    },
    Check {
        name: "blk.read-beyond-the-end",
        level: Level::Should,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a read behind the capacity",
        needs: &[BLK, CONFIG],
        run: read_beyond,
    },
    Check {
        name: "blk.read-across-the-end",
        level: Level::Should,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a read that begins before the \
               capacity and ends behind it",
        needs: &[BLK, CONFIG],
        run: read_across,
    },
    Check {
        name: "blk.write-behind-the-end",
        level: Level::Should,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a write behind the capacity, \
               which leaves the capacity as it is",
        needs: &[BLK, CONFIG],
        run: write_behind,
    },
    Check {
        name: "blk.sector-overflow",
        level: Level::Should,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: the greatest sector number",
        needs: &[BLK],
        run: sector_overflow,
    },
    Check {
        name: "blk.unknown-request",
        level: Level::Must,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the final status byte is VIRTIO_BLK_S_UNSUPP for a request unsupported by the \
               device",
        needs: &[BLK],
        run: unknown_request,
    },
    Check {
        name: "blk.zone-requests",
        level: Level::Must,
        source: OPERATION,
        rule: "if VIRTIO_BLK_F_ZONED is not negotiated, the device MUST reject the VIRTIO_BLK_T_ZONE \
               requests with VIRTIO_BLK_S_UNSUPP",
        needs: &[BLK],
        run: zone_requests,
    },
    Check {
        name: "blk.get-id",
        level: Level::Should,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the device ID string is a NUL-padded ASCII string up to 20 bytes long",
        needs: &[BLK],
        run: get_id,
    },
    Check {
        name: "blk.flush",
        level: Level::Must,
        source: Source::Virtio("5.2.3 Feature bits"),
        rule: "VIRTIO_BLK_F_FLUSH: cache flush command support",
        needs: &[BLK, FLUSH],
        run: flush,
    },
    Check {
        name: "blk.write-and-read",
        level: Level::Must,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "VIRTIO_BLK_T_OUT requests write the contents of data to the block device, \
               VIRTIO_BLK_T_IN requests populate data with the contents of sectors",
        needs: &[BLK],
        run: write_and_read,
    },
    Check {
        name: "blk.write-length",
        level: Level::Should,
        source: Source::Virtio("2.7.8 The Virtqueue Used Ring"),
        rule: "len is the total of bytes written into the buffer: after a write that is the \
               status byte",
        needs: &[BLK],
        run: write_length,
    },
    Check {
        name: "blk.read-only",
        level: Level::Must,
        source: OPERATION,
        rule: "a device MUST set the status byte to VIRTIO_BLK_S_IOERR for a write request if \
               VIRTIO_BLK_F_RO is offered, and MUST NOT write any data",
        needs: &[BLK, Need::Feature(VIRTIO_BLK_F_RO, "VIRTIO_BLK_F_RO")],
        run: read_only,
    },
    Check {
        name: "blk.discard-unmap-flag",
        level: Level::Must,
        source: OPERATION,
        rule: "the device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for discard commands if \
               the unmap flag is set",
        needs: &[BLK, DISCARD],
        run: |bench| flags_unsupported(bench, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_F_DISCARD, 1),
    },
    Check {
        name: "blk.discard-unknown-flag",
        level: Level::Must,
        source: OPERATION,
        rule: "the device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for discard commands if \
               any unknown flag is set",
        needs: &[BLK, DISCARD],
        run: |bench| flags_unsupported(bench, VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_F_DISCARD, 1 << 7),
    },
    Check {
        name: "blk.write-zeroes-unknown-flag",
        level: Level::Must,
        source: OPERATION,
        rule: "the device MUST set the status byte to VIRTIO_BLK_S_UNSUPP for write zeroes \
               commands if any unknown flag is set",
        needs: &[BLK, ZEROES],
        run: |bench| {
            let (kind, feature) = (VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_F_WRITE_ZEROES);
            flags_unsupported(bench, kind, feature, 1 << 31)
        },
    },
    Check {
        name: "blk.write-zeroes",
        level: Level::Must,
        source: OPERATION,
        rule: "after a write zeroes command is completed, reads of the specified ranges of \
               sectors MUST return zeroes, independent of whether unmap was set or clear",
        needs: &[BLK, ZEROES],
        run: write_zeroes,
    },
    Check {
        name: "blk.limits",
        level: Level::Should,
        source: Source::Virtio("5.2.5 Device Initialization"),
        rule: "max_discard_sectors, max_discard_seg, max_write_zeroes_sectors and \
               max_write_zeroes_seg can be read to determine what the driver can use: they are \
               not 0 where the feature is offered",
        needs: &[BLK, CONFIG],
        run: limits,
    },
    Check {
        name: "blk.many-requests",
        level: Level::Must,
        source: Source::Virtio("5.2.6 Device Operation"),
        rule: "the driver enqueues requests to the virtqueues, and they are used by the device \
               (not necessarily in order): each with its own data",
        needs: &[BLK],
        run: many_requests,
    },
];

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const SECTOR: u64 = 512;
/// Bytes of what is read and written: a multiple of every logical block size.
const BLOCK: usize = 4096;
/// Sectors of it.
const SECTORS: u64 = BLOCK as u64 / SECTOR;

/// What a request came back with.
struct Reply {
    data: Vec<u8>,
    status: u8,
    /// The used length.
    len: u32,
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(sector.to_le_bytes());
    bytes
}

/// A status that no device writes.
const NO_STATUS: u8 = 0xee;

/// Makes a request whose data goes one way or the other.
fn request(
    session: &mut Session,
    kind: u32,
    sector: u64,
    out: &[u8],
    into: usize,
) -> Result<Reply, Fault> {
    let readable = [header(kind, sector), out.to_vec()].concat();
    let buffers = Buffers::place(session.memory(), &readable, into as u32 + 1)?;
    buffers.refill(session.memory(), NO_STATUS)?;
    // Old drivers put header, data and status into descriptors of their own, and so do most.
    let chain = buffers.split(&[16], &[into as u32]);
    let used = session.queue_mut(0).run(&chain)?;
    let mut data = buffers.finish(session.memory())?;
    let status = data.pop().unwrap_or(NO_STATUS);
    Ok(Reply {
        data,
        status,
        len: used.len.unwrap_or(0),
    })
}

fn expect(reply: &Reply, status: u8, what: &str) -> Verdict {
    demand(reply.status == status, || {
        let found = match reply.status {
            NO_STATUS => "no status was written".into(),
            status => format!("the status is {status}"),
        };
        format!("{what}: {found} in place of {status}")
    })
}

fn read(session: &mut Session, sector: u64) -> Result<Vec<u8>, Fault> {
    let reply = request(session, VIRTIO_BLK_T_IN, sector, &[], BLOCK)?;
    expect(&reply, OK, &format!("a read of sector {sector}"))?;
    Ok(reply.data)
}

fn write(session: &mut Session, sector: u64, data: &[u8]) -> Verdict {
    let reply = request(session, VIRTIO_BLK_T_OUT, sector, data, 0)?;
    expect(&reply, OK, &format!("a write of sector {sector}"))
}

/// The configuration space up to the limits for zeroes (section 5.2.4).
struct Config(Vec<u8>);

impl Config {
    const SIZE: u32 = 60;

    fn read(session: &mut Session) -> Result<Self, Fault> {
        let reply = session
            .frontend()
            .request(&GetConfig { size: Self::SIZE })?;
        if reply.0.len() != Self::SIZE as usize {
            return Err(Fault::broken(format!(
                "GET_CONFIG of {} bytes returned {}",
                Self::SIZE,
                reply.0.len()
            )));
        }
        Ok(Self(reply.0))
    }

    fn number<const N: usize>(&self, at: usize) -> u64 {
        let bytes = self.0[at..at + N].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    fn capacity(&self) -> u64 {
        self.number::<8>(0)
    }
}

fn started(bench: &Bench) -> Result<Session, Fault> {
    Ok(bench.start(&bench.setup())?)
}

fn configured(bench: &Bench) -> Result<(Session, Config), Fault> {
    let setup = bench.setup().require_protocol(Protocol::CONFIG);
    let mut session = bench.start(&setup)?;
    let config = Config::read(&mut session)?;
    Ok((session, config))
}

/// A session in which a block may be written, and what was in it.
fn writable(bench: &Bench) -> Result<(Session, Vec<u8>), Fault> {
    if bench.profile().has(VIRTIO_BLK_F_RO) {
        return Err(Fault::skip("the device is read-only (VIRTIO_BLK_F_RO)"));
    }
    let mut session = started(bench)?;
    let before = read(&mut session, 0)?;
    Ok((session, before))
}

fn flush_offered(bench: &Bench) -> Verdict {
    demand(bench.profile().has(VIRTIO_BLK_F_FLUSH), || {
        "VIRTIO_BLK_F_FLUSH is not offered".into()
    })
}

fn wce_needs_flush(bench: &Bench) -> Verdict {
    flush_offered(bench)
}

fn config_padding(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let unused0 = config.number::<1>(33);
    demand(unused0 == 0, || format!("unused0 is {unused0:#x}"))?;
    let unused1 = config.number::<3>(57);
    demand(unused1 == 0, || format!("unused1 is {unused1:#x}"))
}

fn block_size(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let size = config.number::<4>(20);
    demand(size.is_power_of_two() && size >= SECTOR, || {
        format!("blk_size is {size}")
    })
}

fn num_queues(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let queues = config.number::<2>(34);
    let offered = bench.profile();
    demand(queues >= 1, || "num_queues is 0".into())?;
    let known = offered.has_protocol(Protocol::MQ);
    demand(!known || queues <= offered.queues as u64, || {
        format!(
            "num_queues is {queues}, and GET_QUEUE_NUM returned {}",
            offered.queues
        )
    })
}

fn last_sector(bench: &Bench) -> Verdict {
    let (mut session, config) = configured(bench)?;
    let capacity = config.capacity();
    if capacity < SECTORS {
        return Err(Fault::skip("the disk is smaller than 4096 bytes"));
    }
    read(&mut session, (capacity / SECTORS - 1) * SECTORS)?;
    Ok(())
}

fn read_is_refused(session: &mut Session, sector: u64) -> Verdict {
    let reply = request(session, VIRTIO_BLK_T_IN, sector, &[], BLOCK)?;
    expect(&reply, IOERR, &format!("a read of sector {sector}"))?;
    // The next request is served.
    read(session, 0)?;
    Ok(())
}

fn read_beyond(bench: &Bench) -> Verdict {
    let (mut session, config) = configured(bench)?;
    let behind = config.capacity().next_multiple_of(SECTORS);
    read_is_refused(&mut session, behind)
}

fn read_across(bench: &Bench) -> Verdict {
    let (mut session, config) = configured(bench)?;
    let Some(sector) = config.capacity().checked_sub(1) else {
        return Err(Fault::skip("the disk is empty"));
    };
    read_is_refused(&mut session, sector)
}

fn write_behind(bench: &Bench) -> Verdict {
    if bench.profile().has(VIRTIO_BLK_F_RO) {
        return Err(Fault::skip("the device is read-only (VIRTIO_BLK_F_RO)"));
    }
    let (mut session, config) = configured(bench)?;
    let sector = config.capacity().next_multiple_of(SECTORS);
    let data = vec![0; BLOCK];
    let reply = request(&mut session, VIRTIO_BLK_T_OUT, sector, &data, 0)?;
    expect(&reply, IOERR, &format!("a write to sector {sector}"))?;
    let capacity = Config::read(&mut session)?.capacity();
    demand(capacity == config.capacity(), || {
        format!("the capacity was {} and is {capacity}", config.capacity())
    })
}

fn sector_overflow(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for sector in [u64::MAX, u64::MAX / SECTOR, 1 << 55] {
        read_is_refused(&mut session, sector)?;
    }
    Ok(())
}

/// Requests without data of types that the device does not support.
fn all_unsupported(bench: &Bench, kinds: &[u32]) -> Verdict {
    let mut session = started(bench)?;
    for kind in kinds {
        let reply = request(&mut session, *kind, 0, &[], 0)?;
        expect(&reply, UNSUPP, &format!("a request of type {kind}"))?;
    }
    Ok(())
}

fn unknown_request(bench: &Bench) -> Verdict {
    all_unsupported(bench, &[0x7ffe, 0xffff_fffe])
}

/// VIRTIO_BLK_T_ZONE_OPEN, _CLOSE, _FINISH, _RESET, _RESET_ALL.
fn zone_requests(bench: &Bench) -> Verdict {
    all_unsupported(bench, &[18, 20, 22, 24, 26])
}

fn get_id(bench: &Bench) -> Verdict {
    let reply = request(&mut started(bench)?, VIRTIO_BLK_T_GET_ID, 0, &[], 20)?;
    if reply.status == UNSUPP {
        return Err(Fault::skip(
            "the device does not support VIRTIO_BLK_T_GET_ID",
        ));
    }
    expect(&reply, OK, "VIRTIO_BLK_T_GET_ID")?;
    let end = reply.data.iter().position(|byte| *byte == 0).unwrap_or(20);
    let (text, padding) = reply.data.split_at(end);
    demand(
        text.is_ascii() && padding.iter().all(|byte| *byte == 0),
        || format!("the string is {:?}", String::from_utf8_lossy(&reply.data)),
    )
}

fn flush(bench: &Bench) -> Verdict {
    let reply = request(&mut started(bench)?, VIRTIO_BLK_T_FLUSH, 0, &[], 0)?;
    expect(&reply, OK, "VIRTIO_BLK_T_FLUSH")
}

/// A block of random bytes.
fn random_block(bench: &Bench) -> Vec<u8> {
    (0..BLOCK).map(|_| bench.random(256) as u8).collect()
}

fn write_and_read(bench: &Bench) -> Verdict {
    let (mut session, before) = writable(bench)?;
    let data = random_block(bench);
    write(&mut session, 0, &data)?;
    let found = read(&mut session, 0)?;
    write(&mut session, 0, &before)?;
    demand(found == data, || {
        "what was read is not what was written".into()
    })?;
    no_stray(&session)
}

fn write_length(bench: &Bench) -> Verdict {
    let (mut session, before) = writable(bench)?;
    let reply = request(&mut session, VIRTIO_BLK_T_OUT, 0, &before, 0)?;
    expect(&reply, OK, "a write")?;
    demand(reply.len == 1, || {
        format!("the used length is {}", reply.len)
    })
}

fn read_only(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let before = read(&mut session, 0)?;
    let other: Vec<u8> = before.iter().map(|byte| !byte).collect();
    let reply = request(&mut session, VIRTIO_BLK_T_OUT, 0, &other, 0)?;
    let after = read(&mut session, 0)?;
    demand(after == before, || "the data was written".into())?;
    expect(&reply, IOERR, "a write")
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    let mut bytes = sector.to_le_bytes().to_vec();
    bytes.extend(sectors.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes
}

fn flags_unsupported(bench: &Bench, kind: u32, feature: u32, flags: u32) -> Verdict {
    let mut session = bench.start(&bench.setup().require(&[feature]))?;
    let before = read(&mut session, 0)?;
    let out = segment(0, SECTORS as u32, flags);
    let reply = request(&mut session, kind, 0, &out, 0)?;
    if reply.status == OK && !bench.profile().has(VIRTIO_BLK_F_RO) {
        write(&mut session, 0, &before)?;
    }
    expect(&reply, UNSUPP, &format!("a segment with flags {flags:#x}"))
}

fn write_zeroes(bench: &Bench) -> Verdict {
    let (mut session, before) = writable(bench)?;
    let mut wrong = None;
    for unmap in [0, 1] {
        write(&mut session, 0, &random_block(bench))?;
        let out = segment(0, SECTORS as u32, unmap);
        let reply = request(&mut session, VIRTIO_BLK_T_WRITE_ZEROES, 0, &out, 0)?;
        expect(&reply, OK, &format!("write zeroes with unmap {unmap}"))?;
        let found = read(&mut session, 0)?;
        if let Some(at) = found.iter().position(|byte| *byte != 0) {
            wrong = Some((unmap, at));
        }
    }
    write(&mut session, 0, &before)?;
    demand(wrong.is_none(), || {
        let (unmap, at) = wrong.unwrap_or_default();
        format!("with unmap {unmap}, byte {at} of the range is not zero")
    })
}

fn limits(bench: &Bench) -> Verdict {
    let (_, config) = configured(bench)?;
    let fields = [
        (VIRTIO_BLK_F_DISCARD, "max_discard_sectors", 36),
        (VIRTIO_BLK_F_DISCARD, "max_discard_seg", 40),
        (VIRTIO_BLK_F_WRITE_ZEROES, "max_write_zeroes_sectors", 48),
        (VIRTIO_BLK_F_WRITE_ZEROES, "max_write_zeroes_seg", 52),
    ];
    for (feature, name, at) in fields {
        let is_limit = config.number::<4>(at) > 0 || !bench.profile().has(feature);
        demand(is_limit, || format!("{name} is 0"))?;
    }
    Ok(())
}

/// Blocks of [`many_requests`], each read by itself before.
const PLACES: u64 = 8;

fn many_requests(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    let mut expected = Vec::new();
    for place in 0..PLACES {
        let reply = request(&mut session, VIRTIO_BLK_T_IN, place * SECTORS, &[], BLOCK)?;
        if reply.status != OK {
            return Err(Fault::skip("the disk is smaller than 32 KiB"));
        }
        expected.push(reply.data);
    }
    let mut away = Vec::new();
    for _ in 0..16 {
        let place = bench.random(PLACES);
        let header = header(VIRTIO_BLK_T_IN, place * SECTORS);
        let buffers = Buffers::place(session.memory(), &header, BLOCK as u32 + 1)?;
        let id = session
            .queue_mut(0)
            .submit(&buffers.split(&[], &[BLOCK as u32]))?;
        away.push((id, place, buffers));
    }
    while !away.is_empty() {
        let used = session.queue_mut(0).wait_used()?;
        let known = away.iter().position(|(id, ..)| *id == used.id);
        let Some(known) = known else {
            return Err(Fault::broken(format!("buffer {} was used twice", used.id)));
        };
        let (_, place, buffers) = away.swap_remove(known);
        let data = buffers.finish(session.memory())?;
        demand(data[..BLOCK] == expected[place as usize][..], || {
            format!("the data is not that of block {place}")
        })?;
    }
    no_stray(&session)
}
