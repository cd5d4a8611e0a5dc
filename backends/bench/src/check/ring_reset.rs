//! A queue that is reset by itself: a frontend stops it by GET_VRING_BASE, and starts another ring
//! in its place.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET};

use super::bench::Bench;
use super::inflight;
use super::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::{Format, Layout, QUIET, Session};

const RESET: Source = Source::Virtio("2.6.1.1.1 Device Requirements: Virtqueue Reset");
const AGAIN: Source = Source::Virtio("2.6.1.2.1 Device Requirements: Virtqueue Re-enable");
const RING_RESET: Need = Need::Feature(VIRTIO_F_RING_RESET, "RING_RESET");
const PACKED: Need = Need::Feature(VIRTIO_F_RING_PACKED, "RING_PACKED");

pub const CHECKS: &[Check] = &[
    Check {
        name: "ring-reset.starts-from-nothing",
        level: Level::Must,
        source: RESET,
        rule: "the device resets any state of a virtqueue to the default state, including the \
               available state and the used state: an empty ring begins at 0",
        needs: &[RING_RESET, Need::Sample],
        run: starts_from_nothing,
    },
    Check {
        name: "ring-reset.packed",
        level: Level::Must,
        source: RESET,
        rule: "the device resets any state of a packed virtqueue to the default state, wrap \
               counters included",
        needs: &[RING_RESET, PACKED, Need::Sample],
        run: packed,
    },
    Check {
        name: "ring-reset.requests-are-gone",
        level: Level::Must,
        source: RESET,
        rule: "after a queue has been reset by the driver, the device does not execute any \
               requests from that virtqueue, or notify the driver for it",
        needs: &[RING_RESET, Need::Sample],
        run: requests_are_gone,
    },
    Check {
        name: "ring-reset.another-size",
        level: Level::Must,
        source: AGAIN,
        rule: "the device observes any queue configuration that may have been changed by the \
               driver, like the maximum queue size",
        needs: &[RING_RESET, Need::Sample],
        run: another_size,
    },
    Check {
        name: "ring-reset.with-a-record",
        level: Level::Must,
        source: RESET,
        rule: "the device resets any state of a virtqueue: a record of requests in flight that \
               has none does not keep an empty ring from starting",
        needs: &[
            RING_RESET,
            Need::Protocol(Protocol::INFLIGHT_SHMFD),
            Need::Sample,
        ],
        run: with_a_record,
    },
    Check {
        name: "ring-reset.packed-with-a-record",
        level: Level::Must,
        source: RESET,
        rule: "the device resets any state of a packed virtqueue: the position in a record of \
               requests in flight is not that of an empty ring",
        needs: &[
            RING_RESET,
            PACKED,
            Need::Protocol(Protocol::INFLIGHT_SHMFD),
            Need::Sample,
        ],
        run: packed_with_a_record,
    },
];

/// Requests on a ring before and after it is reset.
const REQUESTS: usize = 5;

fn run_some(bench: &Bench, session: &mut Session) -> Verdict {
    for _ in 0..REQUESTS {
        bench.run_sample(session)?;
    }
    Ok(())
}

/// Stops the sample's queue, and starts an empty ring of `size` descriptors in its place.
fn reset(bench: &Bench, session: &mut Session, size: u16) -> Verdict {
    session.stop(bench.sample().queue)?;
    replace(bench, session, size)
}

/// Starts an empty ring in the place of one that is stopped.
fn replace(bench: &Bench, session: &mut Session, size: u16) -> Verdict {
    let index = bench.sample().queue;
    session.renew_queue(index, size)?;
    let base = session.queue(index).base();
    session.restart(index, base)?;
    Ok(())
}

/// Resets the queue a few times, with requests before and after.
fn reset_and_run(bench: &Bench, session: &mut Session) -> Verdict {
    let size = session.queue(bench.sample().queue).size();
    run_some(bench, session)?;
    for _ in 0..3 {
        reset(bench, session, size)?;
        run_some(bench, session)?;
    }
    Ok(())
}

fn in_format(bench: &Bench, format: Format) -> Verdict {
    let setup = bench.setup().require(&[VIRTIO_F_RING_RESET]).format(format);
    reset_and_run(bench, &mut bench.start(&setup)?)
}

fn starts_from_nothing(bench: &Bench) -> Verdict {
    in_format(bench, Format::Split)
}

fn packed(bench: &Bench) -> Verdict {
    in_format(bench, Format::Packed)
}

fn requests_are_gone(bench: &Bench) -> Verdict {
    let index = bench.sample().queue;
    let mut session = bench.start(&bench.setup().require(&[VIRTIO_F_RING_RESET]))?;
    bench.run_sample(&mut session)?;
    session.stop(index)?;
    // The device knows nothing of these: the ring was stopped before they were available.
    for _ in 0..REQUESTS {
        let buffers = bench.place(&session)?;
        session.queue_mut(index).submit(buffers.chain())?;
    }
    let used = session.queue(index).places().device;
    let memory = std::rc::Rc::clone(session.memory());
    let before = memory.read(used, 4)?;
    let size = session.queue(index).size();
    replace(bench, &mut session, size)?;
    run_some(bench, &mut session)?;
    let more = session.queue_mut(index).wait_used_within(QUIET).ok();
    demand(more.is_none(), || {
        "a buffer came back that is not in the new ring".into()
    })?;
    let after = memory.read(used, 4)?;
    demand(before == after, || {
        format!("the used ring of before was {before:02x?} and is {after:02x?}")
    })
}

fn another_size(bench: &Bench) -> Verdict {
    // Room for the buffers of all requests.
    let setup = bench.setup().memory(&[Layout::new(0, 4 << 20)]);
    let mut session = bench.start(&setup.require(&[VIRTIO_F_RING_RESET]))?;
    for size in [16, 64, 32] {
        run_some(bench, &mut session)?;
        reset(bench, &mut session, size)?;
        // Round and round, so that a wrong size shows.
        for _ in 0..2 * size {
            bench.run_sample(&mut session)?;
        }
    }
    Ok(())
}

fn with_a_record(bench: &Bench) -> Verdict {
    reset_and_run(
        bench,
        &mut inflight::start_with_record(bench, Format::Split)?,
    )
}

fn packed_with_a_record(bench: &Bench) -> Verdict {
    reset_and_run(
        bench,
        &mut inflight::start_with_record(bench, Format::Packed)?,
    )
}
