//! Requests other than writes, and many at once.

use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN,
};

use super::disk::{
    BLK, BLOCK, OK, OPERATION, REQUEST, SECTORS, UNSUPP, expect, header, request, started,
};
use crate::check::bench::Bench;
use crate::check::ring::no_stray;
use crate::check::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::Buffers;

const FLUSH: Need = Need::Feature(VIRTIO_BLK_F_FLUSH, "VIRTIO_BLK_F_FLUSH");

pub const CHECKS: &[Check] = &[
    Check {
        name: "blk.unknown-request",
        level: Level::Must,
        source: REQUEST,
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
        source: REQUEST,
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
        name: "blk.many-requests",
        level: Level::Must,
        source: REQUEST,
        rule: "the driver enqueues requests to the virtqueues, and they are used by the device \
               (not necessarily in order): each with its own data",
        needs: &[BLK],
        run: many_requests,
    },
];

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
