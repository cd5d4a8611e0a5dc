//! The buffer as it is when it is new.

use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::Payload;
use vhost_user_wire::frontend::{FrontendMessage, SetInflightFd};

use super::record::{SIZE, entry, head, prepared, tracked};
use crate::check::bench::Bench;
use crate::check::types::{Verdict, demand};
use crate::driver::{DriverError, Format};

pub(super) fn get(bench: &Bench) -> Verdict {
    let (_, record) = prepared(bench, Format::Split)?;
    let len = record.file().metadata().map_err(DriverError::from)?.len();
    let end = record.place().mmap_offset + record.place().mmap_size;
    demand(record.place().mmap_size > 0 && len >= end, || {
        format!("the buffer ends at {end}, and its file at {len}")
    })
}

pub(super) fn split_size(bench: &Bench) -> Verdict {
    size(bench, Format::Split)
}

pub(super) fn packed_size(bench: &Bench) -> Verdict {
    size(bench, Format::Packed)
}

fn size(bench: &Bench, format: Format) -> Verdict {
    let (_, record) = prepared(bench, format)?;
    let queues = bench.profile().least_queues() as u64;
    let least = queues * (head(format) + entry(format) * u64::from(SIZE));
    let found = record.place().mmap_size;
    demand(found >= least, || {
        format!("it has {found} bytes, of {least} for {queues} queues of {SIZE}")
    })
}

pub(super) fn uninitialized(bench: &Bench) -> Verdict {
    let (_, record) = prepared(bench, Format::Split)?;
    let version = record.number(8)?;
    demand(version <= 1, || format!("the version is {version}"))?;
    let entry = record.in_flight()?;
    demand(entry.is_none(), || {
        format!("descriptor {} is in flight", entry.unwrap_or(0))
    })
}

pub(super) fn short_file(bench: &Bench) -> Verdict {
    let (mut session, record) = prepared(bench, Format::Split)?;
    let place = record.place();
    let len = head(Format::Split);
    let payload =
        VhostUserInflight::new(len, place.mmap_offset, place.num_queues, place.queue_size);
    let code = SetInflightFd::CODE.into();
    let payload = payload.to_bytes();
    let answer = session
        .frontend()
        .try_message(code, &payload, &[record.file().as_fd()])?;
    demand(answer.is_refusal(), || {
        format!("a buffer of {len} bytes: {answer:?}")
    })
}

pub(super) fn without_buffer(bench: &Bench) -> Verdict {
    let mut session = bench.start(&tracked(bench, Format::Split))?;
    bench.run_sample(&mut session)?;
    Ok(())
}
