//! Virtqueues of both formats: what the device reads, writes, and notifies of.

use virtio_bindings::virtio_config::{VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Buffers, Chain, DriverError, Format, QUIET, Session, Setup, Table};

const PACKED: Need = Need::Feature(VIRTIO_F_RING_PACKED, "VIRTIO_F_RING_PACKED");
const EVENT_IDX: Need = Need::Feature(VIRTIO_RING_F_EVENT_IDX, "VIRTIO_F_EVENT_IDX");
const INDIRECT: Need = Need::Feature(VIRTIO_RING_F_INDIRECT_DESC, "VIRTIO_F_INDIRECT_DESC");
const IN_ORDER: Need = Need::Feature(VIRTIO_F_IN_ORDER, "VIRTIO_F_IN_ORDER");

/// Declares a check of split rings and the same of packed ones.
macro_rules! both {
    ($($name:literal $level:ident $split:literal $packed:literal [$($need:ident),*] $run:path,
       $rule:literal;)*) => {
        pub const CHECKS: &[Check] = &[$(
            Check {
                name: concat!("split.", $name),
                level: Level::$level,
                source: Source::Virtio($split),
                rule: $rule,
                needs: &[Need::Sample $(, $need)*],
                run: |bench| $run(bench, Format::Split),
            },
            Check {
                name: concat!("packed.", $name),
                level: Level::$level,
                source: Source::Virtio($packed),
                rule: $rule,
                needs: &[Need::Sample, PACKED $(, $need)*],
                run: |bench| $run(bench, Format::Packed),
            },
        )*];
    };
}

both! {
    "request" Must "2.7.14 Receiving Used Buffers From The Device"
        "2.8.22 Receiving Used Buffers From The Device" [] request,
        "the device uses the buffers that it is given, each once";
    "used-id" Must "2.7.8 The Virtqueue Used Ring" "2.8.13 The Virtqueue Descriptor Format" []
        used_id,
        "the id of a used element is that of the buffer that was made available, whatever was \
         used before it";
    "used-length" Must "2.7.8.1 Device Requirements: The Virtqueue Used Ring"
        "2.8.4 Element Address and Length" [] used_length,
        "the device MUST write at least len bytes to the buffer, beginning at the first \
         device-writable part: what it says it wrote is written";
    "used-length-bound" Must "2.7.8 The Virtqueue Used Ring" "2.8.4 Element Address and Length" []
        used_length_bound,
        "len is the number of bytes written into the device writable portion: not more than it has";
    "readable-untouched" Must "2.7.5.1 Device Requirements: The Virtqueue Descriptor Table"
        "2.8.15 Device Requirements: The Virtqueue Descriptor Table" [] untouched,
        "a device MUST NOT write to a device-readable buffer, nor to memory that it was not given";
    "done-means-done" Must "2.7.8 The Virtqueue Used Ring"
        "2.8.22 Receiving Used Buffers From The Device" [] done_means_done,
        "the device returns buffers once it is done with them: it does not write into a buffer \
         that it has used";
    "framing" Must "2.7.4.1 Device Requirements: Message Framing" "2.8.5 Scatter-Gather Support" []
        framing,
        "the device MUST NOT make assumptions about the particular arrangement of descriptors: of \
         the two parts of a buffer, each may be in two";
    "framing-many" Should "2.7.4.1 Device Requirements: Message Framing"
        "2.8.5 Scatter-Gather Support" [] framing_many,
        "the device MAY have a reasonable limit of descriptors it will allow in a chain: four of \
         each kind are not beyond it";
    "batch" Must "2.7.13 Supplying Buffers to The Device" "2.8.21 Supplying Buffers to The Device"
        [] batch,
        "several buffers that are made available at once are all used, after one notification";
    "full-ring" Must "2.7.5 The Virtqueue Descriptor Table" "2.8.5 Scatter-Gather Support" []
        full_ring,
        "the driver may use every descriptor of the ring at once, and again";
    "many-laps" Must "2.7.13.3 Updating idx" "2.8.1 Driver and Device Ring Wrap Counters" []
        many_laps,
        "the ring is used round and round";
    "notification" Must "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] notification,
        "the device MUST send a notification after it has used a buffer, where the driver did not \
         suppress it";
    "notification-suppressed" Should
        "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] suppressed,
        "the device SHOULD NOT send a notification where the driver does not want one";
    "event-idx-reached" Must "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [EVENT_IDX] event_reached,
        "with EVENT_IDX the device MUST send a notification when it uses the buffer for which the \
         driver asked for one";
    "event-idx-not-reached" Should
        "2.7.7.2 Device Requirements: Used Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [EVENT_IDX] event_not_reached,
        "with EVENT_IDX the device SHOULD NOT send a notification before the buffer for which the \
         driver asked for one";
    "kick-only-when-wanted" Must
        "2.7.10.2 Device Requirements: Available Buffer Notification Suppression"
        "2.8.10 Driver and Device Event Suppression" [] kick_when_wanted,
        "the device may suppress notifications, and uses what was made available without one";
    "spurious-kicks" Must "2.7.10.2 Device Requirements: Available Buffer Notification Suppression"
        "2.8.16 Driver Requirements: The Virtqueue Descriptor Table" [] spurious_kicks,
        "the device MUST handle spurious notifications from the driver";
    "indirect" Must "2.7.5.3 Indirect Descriptors"
        "2.8.7 Indirect Flag: Scatter-Gather Support" [INDIRECT] indirect,
        "with INDIRECT_DESC a descriptor may refer to a table of the buffer's descriptors";
    "indirect-write-flag" Must "2.7.5.3.2 Device Requirements: Indirect Descriptors"
        "2.8.7 Indirect Flag: Scatter-Gather Support" [INDIRECT] indirect_write_flag,
        "the device MUST ignore the write-only flag in the descriptor that refers to an indirect \
         table";
    "in-order" Must "6.2 Device Requirements: Reserved Feature Bits"
        "6.2 Device Requirements: Reserved Feature Bits" [IN_ORDER] in_order,
        "if VIRTIO_F_IN_ORDER has been negotiated, a device MUST use buffers in the same order in \
         which they have been available";
    "stop-and-continue" Must "2.7 Split Virtqueues" "2.8 Packed Virtqueues" [] stop_and_continue,
        "a ring that is stopped and started at the base that GET_VRING_BASE returned continues \
         where it was (vhost-user, \"VHOST_USER_GET_VRING_BASE\")";
}

fn setup(bench: &Bench, format: Format) -> Setup {
    bench.setup().format(format)
}

/// A session and one sample's buffers, which can be used again and again.
fn start(bench: &Bench, setup: &Setup) -> Result<(Session, Buffers), Fault> {
    let session = bench.start(setup)?;
    let buffers = bench.place(&session)?;
    Ok((session, buffers))
}

/// Runs the sample in these buffers again.
fn again(bench: &Bench, session: &mut Session, buffers: &Buffers, chain: &Chain) -> Verdict {
    buffers.refill(session.memory(), 0)?;
    let used = session.queue_mut(bench.sample().queue).run(chain)?;
    Ok(bench.judge(session, buffers, used)?)
}

fn request(bench: &Bench, format: Format) -> Verdict {
    let mut session = bench.start(&setup(bench, format))?;
    for _ in 0..4 {
        bench.run_sample(&mut session)?;
    }
    let queue = session.queue_mut(bench.sample().queue);
    let more = queue.wait_used_within(QUIET).ok();
    demand(more.is_none(), || "a buffer was used twice".into())
}

/// Whether a buffer of several descriptors comes back at all is not for checks of other rules.
fn needs_several(bench: &Bench, session: &mut Session, buffers: &Buffers) -> Verdict {
    match again(bench, session, buffers, &buffers.split(&[1], &[1])) {
        Err(Fault::Driver(DriverError::NotUsed { .. })) => Err(Fault::skip(
            "no buffer of several descriptors comes back: see the check of framing",
        )),
        verdict => verdict,
    }
}

fn used_id(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    needs_several(bench, &mut session, &buffers)?;
    let queue = bench.sample().queue;
    for count in [1, 3, 2, 5] {
        let mut away = Vec::new();
        for _ in 0..count {
            // Several descriptors each, so that an id is not the number of a slot by chance.
            let chain = bench.place(&session)?.split(&[1], &[1]);
            away.push(session.queue_mut(queue).submit(&chain)?);
        }
        while !away.is_empty() {
            let used = session.queue_mut(queue).wait_used()?;
            let known = away.iter().position(|id| *id == used.id);
            let Some(known) = known else {
                return Err(Fault::broken(format!(
                    "buffer {} was used, of {away:?} that were available",
                    used.id
                )));
            };
            away.remove(known);
        }
    }
    Ok(())
}

/// Bytes that two patterns show to be untouched, among those that the device says it wrote.
fn used_length(bench: &Bench, format: Format) -> Verdict {
    let sample = bench.sample();
    if sample.writable == 0 {
        return Err(Fault::skip(
            "the known request has nothing for the device to write",
        ));
    }
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    let mut untouched = vec![true; sample.writable as usize];
    for pattern in [0xa5, 0x5a, 0x3c] {
        buffers.refill(session.memory(), pattern)?;
        let used = session.run(sample.queue, &buffers)?;
        let wrote = used.len.unwrap_or(0) as usize;
        let answer = buffers.finish(session.memory())?;
        for (at, untouched) in untouched.iter_mut().enumerate() {
            *untouched &= at < wrote && answer[at] == pattern;
        }
    }
    let first = untouched.iter().position(|untouched| *untouched);
    demand(first.is_none(), || {
        let at = first.unwrap_or(0);
        format!("byte {at} of the writable part was never written, and is within the used length")
    })
}

fn used_length_bound(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    for _ in 0..4 {
        buffers.refill(session.memory(), 0)?;
        let used = session.run(bench.sample().queue, &buffers)?;
        let most = buffers.chain().writable_len();
        demand(u64::from(used.len.unwrap_or(0)) <= most, || {
            format!(
                "the used length is {:?}, of {most} writable bytes",
                used.len
            )
        })?;
    }
    Ok(())
}

fn untouched(bench: &Bench, format: Format) -> Verdict {
    let mut session = bench.start(&setup(bench, format))?;
    for _ in 0..8 {
        bench.run_sample(&mut session)?;
    }
    no_stray(&session)
}

/// Nothing has been written that the device may not write.
pub fn no_stray(session: &Session) -> Verdict {
    match session.memory().stray()? {
        Some(stray) => Err(Fault::broken(stray.to_string())),
        None => Ok(()),
    }
}

fn done_means_done(bench: &Bench, format: Format) -> Verdict {
    let mut session = bench.start(&setup(bench, format))?;
    let queue = bench.sample().queue;
    let mut away = Vec::new();
    for _ in 0..12 {
        let buffers = bench.place(&session)?;
        let id = session.queue_mut(queue).submit(buffers.chain())?;
        away.push((id, buffers));
    }
    for _ in 0..away.len() {
        let used = session.queue_mut(queue).wait_used()?;
        // At once: what is written from here on is too late.
        if let Some((_, buffers)) = away.iter().find(|(id, _)| *id == used.id) {
            buffers.finish(session.memory())?;
        }
    }
    std::thread::sleep(QUIET);
    no_stray(&session)
}

fn framing(bench: &Bench, format: Format) -> Verdict {
    let sample = bench.sample();
    let half = sample.readable.len() as u32 / 2;
    let last = sample.writable.saturating_sub(1);
    let arrangements: [(&[u32], &[u32]); 4] = [
        (&[], &[]),
        (&[1], &[last]),
        (&[half], &[1]),
        (&[half + 1], &[last / 2]),
    ];
    framed(bench, format, &arrangements)
}

fn framing_many(bench: &Bench, format: Format) -> Verdict {
    let sample = bench.sample();
    let half = sample.readable.len() as u32 / 2;
    let last = sample.writable.saturating_sub(1);
    let arrangements: [(&[u32], &[u32]); 3] = [
        (&[half], &[1, 2, 3]),
        (&[1, 1, half], &[last / 2, 1]),
        (&[half, 1], &[last.saturating_sub(1)]),
    ];
    framed(bench, format, &arrangements)
}

/// Runs the sample with its two parts divided in each of these ways.
fn framed(bench: &Bench, format: Format, arrangements: &[(&[u32], &[u32])]) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format))?;
    for (readable, writable) in arrangements {
        let chain = buffers.split(readable, writable);
        again(bench, &mut session, &buffers, &chain)?;
    }
    no_stray(&session)
}

fn batch(bench: &Bench, format: Format) -> Verdict {
    let (mut session, _) = start(bench, &setup(bench, format))?;
    let queue = bench.sample().queue;
    for count in [2, 5, 9] {
        for _ in 0..count {
            let buffers = bench.place(&session)?;
            session.queue_mut(queue).stage(buffers.chain())?;
        }
        session.queue_mut(queue).publish()?;
        session.queue(queue).kick();
        for _ in 0..count {
            session.queue_mut(queue).wait_used()?;
        }
    }
    Ok(())
}

fn full_ring(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format).queue_size(16))?;
    let queue = bench.sample().queue;
    for _ in 0..3 {
        let mut count = 0;
        while session.queue(queue).free() >= buffers.chain().descriptors() {
            let buffers = bench.place(&session)?;
            session.queue_mut(queue).stage(buffers.chain())?;
            count += 1;
        }
        session.queue_mut(queue).publish()?;
        session.queue(queue).kick();
        for _ in 0..count {
            session.queue_mut(queue).wait_used()?;
        }
    }
    Ok(())
}

fn many_laps(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format).queue_size(16))?;
    for _ in 0..100 {
        again(bench, &mut session, &buffers, buffers.chain())?;
    }
    Ok(())
}

fn notification(bench: &Bench, format: Format) -> Verdict {
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

fn suppressed(bench: &Bench, format: Format) -> Verdict {
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

fn event_reached(bench: &Bench, format: Format) -> Verdict {
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

fn event_not_reached(bench: &Bench, format: Format) -> Verdict {
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
fn kick_when_wanted(bench: &Bench, format: Format) -> Verdict {
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

fn spurious_kicks(bench: &Bench, format: Format) -> Verdict {
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

/// Room for a table of as many descriptors as any sample is cut into.
fn table(session: &Session) -> Result<Table, Fault> {
    let addr = session.memory().take("an indirect table", 16 * 16, 16)?;
    Ok(Table::at(addr))
}

fn indirect(bench: &Bench, format: Format) -> Verdict {
    let setup = setup(bench, format).require(&[VIRTIO_RING_F_INDIRECT_DESC]);
    let (mut session, buffers) = start(bench, &setup)?;
    let table = table(&session)?;
    let half = bench.sample().writable / 2;
    let single = buffers.chain().clone();
    again(bench, &mut session, &buffers, &single.indirect(table))?;
    needs_several(bench, &mut session, &buffers)?;
    let several = buffers.split(&[1], &[half]).indirect(table);
    again(bench, &mut session, &buffers, &several)?;
    needs_several(bench, &mut session, &buffers)?;
    no_stray(&session)
}

fn indirect_write_flag(bench: &Bench, format: Format) -> Verdict {
    let setup = setup(bench, format).require(&[VIRTIO_RING_F_INDIRECT_DESC]);
    let (mut session, buffers) = start(bench, &setup)?;
    let table = Table {
        marked_writable: true,
        ..table(&session)?
    };
    let chain = buffers.chain().clone().indirect(table);
    again(bench, &mut session, &buffers, &chain)?;
    no_stray(&session)
}

fn in_order(bench: &Bench, format: Format) -> Verdict {
    let setup = setup(bench, format).require(&[VIRTIO_F_IN_ORDER]);
    let (mut session, _) = start(bench, &setup)?;
    let queue = bench.sample().queue;
    for _ in 0..4 {
        let mut away = Vec::new();
        for _ in 0..12 {
            let buffers = bench.place(&session)?;
            away.push(session.queue_mut(queue).submit(buffers.chain())?);
        }
        for id in away {
            let used = session.queue_mut(queue).wait_used()?;
            demand(used.id == id, || {
                format!("buffer {} was used before {id}, which came first", used.id)
            })?;
        }
    }
    Ok(())
}

fn stop_and_continue(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format).queue_size(16))?;
    let queue = bench.sample().queue;
    for round in 0..12 {
        for _ in 0..3 {
            again(bench, &mut session, &buffers, buffers.chain())?;
        }
        let expected = session.queue(queue).base();
        let base = session.stop(queue)?;
        demand(base == expected, || {
            format!("the base is {base:#x} in place of {expected:#x}, in round {round}")
        })?;
        session.restart(queue, base)?;
        session.queue(queue).kick();
    }
    Ok(())
}
