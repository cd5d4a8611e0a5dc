//! The end of a disk.

use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_RO, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};

use super::disk::{
    BLK, BLOCK, CONFIG, Config, IOERR, LAYOUT, REQUEST, SECTOR, SECTORS, configured, expect, read,
    request, started,
};
use crate::check::bench::Bench;
use crate::check::types::{Check, Fault, Level, Verdict, demand};
use crate::driver::Session;

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.last-sector",
        level: Level::Must,
        source: LAYOUT,
        rule: "the capacity of the device is in 512-byte sectors: its last block can be read",
        needs: &[BLK, CONFIG],
        run: last_sector,
    },
    Check {
        name: "blk.read-beyond-the-end",
        level: Level::Should,
        source: REQUEST,
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a read behind the capacity",
        needs: &[BLK, CONFIG],
        run: read_beyond,
    },
    Check {
        name: "blk.read-across-the-end",
        level: Level::Should,
        source: REQUEST,
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a read that begins before the \
               capacity and ends behind it",
        needs: &[BLK, CONFIG],
        run: read_across,
    },
    Check {
        name: "blk.write-behind-the-end",
        level: Level::Should,
        source: REQUEST,
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: a write behind the capacity, \
               which leaves the capacity as it is",
        needs: &[BLK, CONFIG],
        run: write_behind,
    },
    Check {
        name: "blk.sector-overflow",
        level: Level::Should,
        source: REQUEST,
        rule: "the status is VIRTIO_BLK_S_IOERR for a driver error: the greatest sector number",
        needs: &[BLK],
        run: sector_overflow,
    },
];

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
