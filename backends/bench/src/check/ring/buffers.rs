//! What the device reads and writes, and how it uses buffers.

use virtio_bindings::virtio_config::VIRTIO_F_IN_ORDER;
use virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC;

use super::super::bench::Bench;
use super::super::types::{Fault, Verdict, demand};
use super::steps::{again, no_stray, setup, start};
use crate::driver::{Buffers, DriverError, Format, QUIET, Session, Table};

pub fn request(bench: &Bench, format: Format) -> Verdict {
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

pub fn used_id(bench: &Bench, format: Format) -> Verdict {
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
pub fn used_length(bench: &Bench, format: Format) -> Verdict {
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

pub fn used_length_bound(bench: &Bench, format: Format) -> Verdict {
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

pub fn untouched(bench: &Bench, format: Format) -> Verdict {
    let mut session = bench.start(&setup(bench, format))?;
    for _ in 0..8 {
        bench.run_sample(&mut session)?;
    }
    no_stray(&session)
}

pub fn done_means_done(bench: &Bench, format: Format) -> Verdict {
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

pub fn framing(bench: &Bench, format: Format) -> Verdict {
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

pub fn framing_many(bench: &Bench, format: Format) -> Verdict {
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

pub fn batch(bench: &Bench, format: Format) -> Verdict {
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

pub fn full_ring(bench: &Bench, format: Format) -> Verdict {
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

pub fn many_laps(bench: &Bench, format: Format) -> Verdict {
    let (mut session, buffers) = start(bench, &setup(bench, format).queue_size(16))?;
    for _ in 0..100 {
        again(bench, &mut session, &buffers, buffers.chain())?;
    }
    Ok(())
}

/// Room for a table of as many descriptors as any sample is cut into.
fn table(session: &Session) -> Result<Table, Fault> {
    let addr = session.memory().take("an indirect table", 16 * 16, 16)?;
    Ok(Table::at(addr))
}

pub fn indirect(bench: &Bench, format: Format) -> Verdict {
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

pub fn indirect_write_flag(bench: &Bench, format: Format) -> Verdict {
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

pub fn in_order(bench: &Bench, format: Format) -> Verdict {
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

pub fn stop_and_continue(bench: &Bench, format: Format) -> Verdict {
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
