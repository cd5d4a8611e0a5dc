//! Entropy devices (virtio 1.4, section 5.4).

use std::collections::HashSet;

use super::bench::Bench;
use super::types::{Check, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::Buffers;

const RNG: Need = Need::Type(DeviceType::RNG);
const OPERATION: Source = Source::Virtio("5.4.6.2 Device Requirements: Device Operation");

pub const CHECKS: &[Check] = &[
    Check {
        name: "rng.one-byte-or-more",
        level: Level::Must,
        source: OPERATION,
        rule: "the device MUST place one or more random bytes into the buffer",
        needs: &[RNG],
        run: one_byte_or_more,
    },
    Check {
        name: "rng.single-byte",
        level: Level::Must,
        source: OPERATION,
        rule: "the device MUST place one or more random bytes into the buffer: into one of a \
               single byte",
        needs: &[RNG],
        run: single_byte,
    },
    Check {
        name: "rng.different-each-time",
        level: Level::Must,
        source: OPERATION,
        rule: "the bytes are random: 32 buffers of 16 bytes or more are not alike",
        needs: &[RNG],
        run: different,
    },
];

fn one_byte_or_more(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    for len in [1, 7, 64, 4096] {
        let buffers = Buffers::place(session.memory(), &[], len)?;
        let used = session.run(0, &buffers)?;
        let wrote = used.len.unwrap_or(0);
        demand((1..=len).contains(&wrote), || {
            format!("the used length is {wrote}, of {len}")
        })?;
    }
    Ok(())
}

fn single_byte(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    let buffers = Buffers::place(session.memory(), &[], 1)?;
    let mut found = HashSet::new();
    for _ in 0..64 {
        buffers.refill(session.memory(), 0)?;
        session.run(0, &buffers)?;
        found.extend(buffers.finish(session.memory())?);
    }
    demand(found.len() > 1, || {
        format!("64 buffers of one byte all have {found:02x?}")
    })
}

fn different(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    let buffers = Buffers::place(session.memory(), &[], 64)?;
    let mut seen = HashSet::new();
    for _ in 0..32 {
        buffers.refill(session.memory(), 0)?;
        let used = session.run(0, &buffers)?;
        let mut bytes = buffers.finish(session.memory())?;
        bytes.truncate(used.len.unwrap_or(0) as usize);
        // Few bytes may be alike by chance.
        if bytes.len() >= 16 {
            demand(seen.insert(bytes), || "two buffers are alike".into())?;
        }
    }
    Ok(())
}
