//! Data that is written, discarded or zeroed. What was there is put back afterwards.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_WRITE_ZEROES, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_WRITE_ZEROES,
};

use super::disk::{
    BLK, BLOCK, IOERR, OK, OPERATION, REQUEST, SECTORS, UNSUPP, expect, read, request, started,
    writable, write,
};
use crate::check::bench::Bench;
use crate::check::ring::no_stray;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};

const DISCARD: Need = Need::Feature(VIRTIO_BLK_F_DISCARD, "VIRTIO_BLK_F_DISCARD");
const ZEROES: Need = Need::Feature(VIRTIO_BLK_F_WRITE_ZEROES, "VIRTIO_BLK_F_WRITE_ZEROES");

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.write-and-read",
        level: Level::Must,
        source: REQUEST,
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
];

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
