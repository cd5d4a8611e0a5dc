//! What the device notifies of, and what it is notified of.

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

use super::super::bench::Bench;
use super::super::types::{Verdict, demand};
use super::steps::{again, setup, start};
use crate::driver::{Format, QUIET, Session, Setup};

pub fn notification(bench: &Bench, format: Format) -> Verdict {
    let setup = setup(bench, format).without(&[VIRTIO_RING_F_EVENT_IDX]);
    let (mut session, buffers) = start(bench, &setup)?;
    let queue = bench.sample().queue;
    session.queue_mut(queue).set_notify(true)?;
    for _ in 0..8 {
        session.queue(queue).forget_notifications();
        buffers.refill(session.memory(), 0)?;
        session.run(queue, &buffers)?;
        session.queue_mut(queue).wait_notified()?;
    }
    Ok(())
}

pub fn suppressed(bench: &Bench, format: Format) -> Verdict {
    let setup = setup(bench, format).without(&[VIRTIO_RING_F_EVENT_IDX]);
    let (mut session, buffers) = start(bench, &setup)?;
    let queue = bench.sample().queue;
    session.queue_mut(queue).set_notify(false)?;
    session.queue(queue).forget_notifications();
    for _ in 0..4 {
        buffers.refill(session.memory(), 0)?;
        session.run(queue, &buffers)?;
    }
    not_notified(&session, queue, "though the driver wants no notification")
}

fn not_notified(session: &Session, queue: usize, though: &str) -> Verdict {
    let notified = session.queue(queue).is_notified_within(QUIET)?;
    demand(!notified, || format!("a notification came {though}"))
}

pub fn event_reached(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    let queue = bench.sample().queue;
    for _ in 0..8 {
        session.queue(queue).forget_notifications();
        buffers.refill(session.memory(), 0)?;
        session.queue_mut(queue).stage(buffers.chain())?;
        session.queue_mut(queue).notify_after(1)?;
        session.queue_mut(queue).publish()?;
        session.queue(queue).kick();
        session.queue_mut(queue).wait_used()?;
        session.queue_mut(queue).wait_notified()?;
    }
    Ok(())
}

pub fn event_not_reached(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    let queue = bench.sample().queue;
    // The buffer far behind those that follow.
    session.queue_mut(queue).notify_after(40)?;
    session.queue(queue).forget_notifications();
    for _ in 0..4 {
        buffers.refill(session.memory(), 0)?;
        session.run(queue, &buffers)?;
    }
    not_notified(&session, queue, "before the buffer for which it was asked")
}

/// By each way in which a device can say what it wants.
pub fn kick_when_wanted(bench: &Bench, format: Format) -> Verdict {
    kick_as_wanted(bench, &setup(bench, format))?;
    kick_as_wanted(
        bench,
        &setup(bench, format).without(&[VIRTIO_RING_F_EVENT_IDX]),
    )
}

fn kick_as_wanted(bench: &Bench, setup: &Setup) -> Verdict {
    let (mut session, buffers) = start(bench, setup)?;
    let queue = bench.sample().queue;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(bench.place(&session)?);
    }
    for _ in 0..200 {
        for buffers in others.iter().chain([&buffers]) {
            session.queue_mut(queue).add(buffers.chain())?;
            session.queue(queue).kick_if_wanted()?;
        }
        for _ in 0..=others.len() {
            session.queue_mut(queue).wait_used()?;
        }
    }
    Ok(())
}

pub fn spurious_kicks(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    let queue = bench.sample().queue;
    for _ in 0..200 {
        session.queue(queue).kick();
    }
    again(bench, &mut session, &buffers, buffers.chain())?;
    for _ in 0..50 {
        session.queue(queue).kick();
        std::thread::yield_now();
    }
    let more = session.queue_mut(queue).wait_used_within(QUIET).ok();
    demand(more.is_none(), || "a buffer was used twice".into())?;
    again(bench, &mut session, &buffers, buffers.chain())
}
