//! What stands in the record, and what a backend makes of one that another left.

use super::away::{Away, all_come_back};
use super::record::{Record, SIZE, entry, head, prepared, start};
use crate::check::bench::Bench;
use crate::check::types::{Fault, Verdict, demand};
use crate::driver::{Descriptor, Format, Session, VIRTQ_WRITE};

/// Bytes of a descriptor.
const DESCRIPTOR: u64 = 16;

/// Where the region of another queue begins is left open: most back-ends align each to 64 bytes,
/// of which the document says nothing.
fn only_first(queue: usize) -> Verdict {
    if queue == 0 {
        return Ok(());
    }
    let text = format!("where the region of queue {queue} begins is left open by the document");
    Err(Fault::skip(text))
}

pub(super) fn split_cleared(bench: &Bench) -> Verdict {
    let record = record_of_five(bench, Format::Split)?;
    let used = record.number(14)?;
    demand(used == 5, || format!("used_idx is {used} after 5 requests"))
}

pub(super) fn packed_cleared(bench: &Bench) -> Verdict {
    let record = record_of_five(bench, Format::Packed)?;
    let (used, old) = (record.number(16)?, record.number(18)?);
    demand(used == old, || {
        format!("used_idx is {used}, and old_used_idx {old}")
    })
}

/// The record when five requests were made and used and the ring was stopped.
fn record_of_five(bench: &Bench, format: Format) -> Result<Record, Fault> {
    let (mut session, record) = prepared(bench, format)?;
    start(&mut session, &record)?;
    for _ in 0..5 {
        bench.run_sample(&mut session)?;
    }
    let queue = bench.sample().queue;
    session.stop(queue)?;
    only_first(queue)?;
    let entry = record.in_flight()?;
    demand(entry.is_none(), || {
        format!("entry {} is in flight", entry.unwrap_or(0))
    })?;
    Ok(record)
}

/// Makes some requests available.
fn available(bench: &Bench, session: &mut Session, count: u16) -> Result<Away, Fault> {
    let queue = bench.sample().queue;
    let mut away = Vec::new();
    for _ in 0..count {
        let buffers = bench.place(session)?;
        let head = session.queue_mut(queue).add(buffers.chain())?;
        away.push((head, buffers));
    }
    Ok(away)
}

/// A ring in which some requests are available, and what another backend wrote of them.
fn taken(bench: &Bench, count: u16) -> Result<(Session, Record, Away), Fault> {
    let (mut session, record) = prepared(bench, Format::Split)?;
    let queue = bench.sample().queue;
    only_first(queue)?;
    let away = available(bench, &mut session, count)?;
    // Version 1, and as many entries.
    record.write(8, &[1, 0])?;
    record.write(10, &SIZE.to_le_bytes())?;
    let (head_size, entry_size) = (head(Format::Split), entry(Format::Split));
    for (counter, (head, _)) in (1u64..).zip(&away) {
        let entry = head_size + entry_size * u64::from(*head);
        record.write(entry, &[1])?;
        record.write(entry + 8, &counter.to_le_bytes())?;
    }
    Ok((session, record, away))
}

pub(super) fn resubmitted(bench: &Bench) -> Verdict {
    let (mut session, record, away) = taken(bench, 4)?;
    start(&mut session, &record)?;
    let away = away.iter().map(|(head, _)| *head).collect();
    all_come_back(bench, &mut session, away)?;
    bench.run_sample(&mut session)?;
    Ok(())
}

pub(super) fn packed_resubmitted(bench: &Bench) -> Verdict {
    let (mut session, record) = prepared(bench, Format::Packed)?;
    let queue = bench.sample().queue;
    only_first(queue)?;
    let mut away = available(bench, &mut session, 4)?;
    write_packed(&session, &record, queue, &away)?;
    let (done, _) = away.remove(EARLY);
    use_first(bench, &session, done)?;
    session.queue_mut(queue).poll_used()?;
    start(&mut session, &record)?;
    let away = away.iter().map(|(id, _)| *id).collect();
    all_come_back(bench, &mut session, away)?;
    bench.run_sample(&mut session)?;
    Ok(())
}

/// The chain of a packed ring that the backend before had used already, before the first one:
/// its used descriptor is where the first chain was, which is in the record only.
const EARLY: usize = 1;

/// Writes the first used descriptor of a packed ring.
fn use_first(bench: &Bench, session: &Session, id: u16) -> Verdict {
    /// VIRTQ_DESC_F_AVAIL and VIRTQ_DESC_F_USED: used, in the first round.
    const USED: u16 = 1 << 7 | 1 << 15;
    let sample = bench.sample();
    let used = Descriptor::packed(0, sample.writable, id, USED | VIRTQ_WRITE);
    let ring = session.queue(sample.queue).places().descriptors;
    Ok(used.put(session.memory(), ring, 0)?)
}

/// What another backend wrote when it had taken all chains of a packed ring and used one: an
/// entry for each descriptor, in the order of the ring.
fn write_packed(session: &Session, record: &Record, queue: usize, away: &Away) -> Verdict {
    let ring = session.queue(queue).places().descriptors;
    let count = away[EARLY].1.chain().descriptors() as u16;
    let taken = count * away.len() as u16;
    for index in 0..taken {
        let at = ring + DESCRIPTOR * u64::from(index);
        write_entry(
            record,
            index,
            &session.memory().read(at, DESCRIPTOR as usize)?,
        )?;
    }
    for (counter, first) in (1u64..).zip((0..taken).step_by(count.into())) {
        let at = place_of(first);
        record.write(at, &[1])?;
        record.write(at + 4, &(first + count - 1).to_le_bytes())?;
        record.write(at + 6, &count.to_le_bytes())?;
        record.write(at + 8, &counter.to_le_bytes())?;
    }
    // The entries of the chain that was used are the first free ones.
    let free = EARLY as u16 * count;
    record.write(place_of(free), &[0])?;
    record.write(place_of(free + count - 1) + 2, &taken.to_le_bytes())?;
    for index in taken..SIZE {
        record.write(place_of(index) + 2, &(index + 1).to_le_bytes())?;
    }
    // Version 1, and as many entries; both heads of the free list, and both used positions, of
    // the first round.
    let header = [1, SIZE, free, free, count, count, 0x0101];
    for (at, field) in (8..).step_by(2).zip(header) {
        record.write(at, &field.to_le_bytes())?;
    }
    Ok(())
}

/// Where an entry of queue 0 is.
fn place_of(index: u16) -> u64 {
    head(Format::Packed) + entry(Format::Packed) * u64::from(index)
}

/// The copy of a descriptor: `next`, then id, flags, length and address.
fn write_entry(record: &Record, index: u16, descriptor: &[u8]) -> Verdict {
    let at = place_of(index);
    record.write(at + 2, &(index + 1).to_le_bytes())?;
    record.write(at + 16, &descriptor[12..])?;
    record.write(at + 20, &descriptor[8..12])?;
    record.write(at + 24, &descriptor[..8])?;
    Ok(())
}

pub(super) fn last_batch(bench: &Bench) -> Verdict {
    let (mut session, record, away) = taken(bench, 3)?;
    // The first request was used, and the backend died before it said so in the record.
    let queue = bench.sample().queue;
    let (head, _) = away[0];
    let device = session.queue(queue).places().device;
    let memory = std::rc::Rc::clone(session.memory());
    memory.write(device + 4, &u32::from(head).to_le_bytes())?;
    memory.store_u16(device + 2, 1)?;
    record.write(12, &head.to_le_bytes())?;
    session.queue_mut(queue).poll_used()?;
    start(&mut session, &record)?;
    let left = away[1..].iter().map(|(head, _)| *head).collect();
    all_come_back(bench, &mut session, left)
}
