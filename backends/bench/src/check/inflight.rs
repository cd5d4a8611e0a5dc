//! The record of requests in flight, which outlives a backend.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::Payload;
use vhost_user_wire::frontend::{FrontendMessage, GetInflightFd, SetInflightFd};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Buffers, DEADLINE, DriverError, QUIET, Session, Setup};

const INFLIGHT: Need = Need::Protocol(Protocol::INFLIGHT_SHMFD);
const GET: Source = Source::VhostUser("VHOST_USER_GET_INFLIGHT_FD");
const TRACKING: Source = Source::VhostUser("Inflight I/O tracking");

pub const CHECKS: &[Check] = &[
    Check {
        name: "inflight.get",
        level: Level::Must,
        source: GET,
        rule: "this message is submitted by the front-end to get a shared buffer from the \
               back-end: the reply has a file that is as long as it says",
        needs: &[INFLIGHT],
        run: get,
    },
    Check {
        name: "inflight.size",
        level: Level::Must,
        source: TRACKING,
        rule: "the buffer has a region for each queue, with a DescStateSplit for each descriptor",
        needs: &[INFLIGHT],
        run: size,
    },
    Check {
        name: "inflight.uninitialized",
        level: Level::Must,
        source: TRACKING,
        rule: "the version is 1, or zero for an uninitialized buffer, in a buffer that is new, and \
               no descriptor is in flight",
        needs: &[INFLIGHT],
        run: uninitialized,
    },
    Check {
        name: "inflight.short-file-is-refused",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_INFLIGHT_FD"),
        rule: "a buffer that is shorter than its queues need is refused",
        needs: &[INFLIGHT, Need::Protocol(Protocol::REPLY_ACK)],
        run: short_file,
    },
    Check {
        name: "inflight.without-a-buffer",
        level: Level::Should,
        source: TRACKING,
        rule: "a front-end that negotiates INFLIGHT_SHMFD and hands over no buffer is served",
        needs: &[INFLIGHT, Need::Sample],
        run: without_buffer,
    },
    Check {
        name: "inflight.cleared-when-used",
        level: Level::Must,
        source: TRACKING,
        rule: "the inflight field of each entry is set to 0 when its buffer was used, and used_idx \
               to the idx value of the used ring",
        needs: &[INFLIGHT, Need::Sample],
        run: cleared,
    },
    Check {
        name: "inflight.resubmitted",
        level: Level::Must,
        source: TRACKING,
        rule: "when reconnecting: resubmit inflight DescStateSplit entries: those that another \
               back-end took and did not use",
        needs: &[INFLIGHT, Need::Sample],
        run: resubmitted,
    },
    Check {
        name: "inflight.last-batch",
        level: Level::Must,
        source: TRACKING,
        rule: "when reconnecting: if used_idx does not match the idx of the used ring, the entries \
               of the last batch are not in flight: what was used is not used again",
        needs: &[INFLIGHT, Need::Sample],
        run: last_batch,
    },
    Check {
        name: "inflight.killed",
        level: Level::Must,
        source: TRACKING,
        rule: "to support reconnecting after restart or crash, the back-end resubmits inflight \
               I/Os: each request comes back once when the process is killed at any moment",
        needs: &[INFLIGHT, Need::Sample, Need::Restarts],
        run: killed,
    },
];

/// Descriptors of the queues here.
const SIZE: u16 = 64;
/// Bytes of QueueRegionSplit before its entries, and of one of them.
const HEAD: u64 = 16;
const ENTRY: u64 = 16;

/// A record as the backend made it.
struct Record {
    place: VhostUserInflight,
    file: File,
}

impl Record {
    fn ask(session: &mut Session, queues: usize) -> Result<Self, Fault> {
        let request = GetInflightFd {
            queues: queues as u16,
            queue_size: SIZE,
        };
        let (place, files) = session.frontend().request_with_files(&request)?;
        match <[File; 1]>::try_from(files) {
            Ok([file]) => Ok(Self { place, file }),
            Err(files) => Err(Fault::broken(format!(
                "{} files came with the reply in place of one",
                files.len()
            ))),
        }
    }

    fn hand_over(&self, session: &mut Session) -> Result<(), DriverError> {
        let (payload, file) = (self.place, self.file.as_fd());
        session.frontend().execute(&SetInflightFd { payload, file })
    }

    fn bytes(&self, at: u64, len: usize) -> Result<Vec<u8>, DriverError> {
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, self.place.mmap_offset + at)?;
        Ok(bytes)
    }

    fn write(&self, at: u64, bytes: &[u8]) -> Result<(), DriverError> {
        Ok(self.file.write_all_at(bytes, self.place.mmap_offset + at)?)
    }

    fn number(&self, at: u64) -> Result<u16, DriverError> {
        let bytes = self.bytes(at, 2)?;
        Ok(bytes
            .first_chunk()
            .map_or(0, |bytes| u16::from_le_bytes(*bytes)))
    }
}

fn tracked(bench: &Bench) -> Setup {
    let queues = bench.profile().least_queues();
    bench
        .setup()
        .queues(queues, SIZE)
        .require_protocol(Protocol::INFLIGHT_SHMFD)
}

fn prepared(bench: &Bench) -> Result<(Session, Record), Fault> {
    let mut session = tracked(bench).prepare(bench.connect()?)?;
    let record = Record::ask(&mut session, bench.profile().least_queues())?;
    Ok((session, record))
}

/// Hands over the record and starts all rings, each where its used ring ends.
fn start(session: &mut Session, record: &Record) -> Verdict {
    record.hand_over(session)?;
    session.share_memory()?;
    for index in 0..session.queues().len() {
        let base = session.queue(index).used_base();
        session.restart(index, base)?;
        session.queue(index).kick();
    }
    Ok(())
}

fn get(bench: &Bench) -> Verdict {
    let (_, record) = prepared(bench)?;
    let len = record.file.metadata().map_err(DriverError::from)?.len();
    let end = record.place.mmap_offset + record.place.mmap_size;
    demand(record.place.mmap_size > 0 && len >= end, || {
        format!("the buffer ends at {end}, and its file at {len}")
    })
}

fn size(bench: &Bench) -> Verdict {
    let (_, record) = prepared(bench)?;
    let queues = bench.profile().least_queues() as u64;
    let least = queues * (HEAD + ENTRY * u64::from(SIZE));
    let found = record.place.mmap_size;
    demand(found >= least, || {
        format!("it has {found} bytes, of {least} for {queues} queues of {SIZE}")
    })
}

fn uninitialized(bench: &Bench) -> Verdict {
    let (_, record) = prepared(bench)?;
    let version = record.number(8)?;
    demand(version <= 1, || format!("the version is {version}"))?;
    let entries = record.bytes(HEAD, usize::from(SIZE) * ENTRY as usize)?;
    let inflight = entries
        .chunks(ENTRY as usize)
        .position(|entry| entry[0] != 0);
    demand(inflight.is_none(), || {
        format!("descriptor {} is in flight", inflight.unwrap_or(0))
    })
}

fn short_file(bench: &Bench) -> Verdict {
    let (mut session, record) = prepared(bench)?;
    let place = record.place;
    let payload =
        VhostUserInflight::new(HEAD, place.mmap_offset, place.num_queues, place.queue_size);
    let code = SetInflightFd::CODE.into();
    let payload = payload.to_bytes();
    let answer = session
        .frontend()
        .try_message(code, &payload, &[record.file.as_fd()])?;
    demand(answer.is_refusal(), || {
        format!("a buffer of {HEAD} bytes: {answer:?}")
    })
}

fn without_buffer(bench: &Bench) -> Verdict {
    let mut session = bench.start(&tracked(bench))?;
    bench.run_sample(&mut session)?;
    Ok(())
}

/// Where the region of another queue begins is left open: most back-ends align each to 64 bytes,
/// of which the document says nothing.
fn only_first(queue: usize) -> Verdict {
    if queue == 0 {
        return Ok(());
    }
    let text = format!("where the region of queue {queue} begins is left open by the document");
    Err(Fault::skip(text))
}

fn cleared(bench: &Bench) -> Verdict {
    let (mut session, record) = prepared(bench)?;
    start(&mut session, &record)?;
    for _ in 0..5 {
        bench.run_sample(&mut session)?;
    }
    let queue = bench.sample().queue;
    session.stop(queue)?;
    only_first(queue)?;
    let entries = record.bytes(HEAD, usize::from(SIZE) * ENTRY as usize)?;
    let inflight = entries
        .chunks(ENTRY as usize)
        .position(|entry| entry[0] != 0);
    demand(inflight.is_none(), || {
        format!("descriptor {} is in flight", inflight.unwrap_or(0))
    })?;
    let used = record.number(14)?;
    demand(used == 5, || format!("used_idx is {used} after 5 requests"))
}

/// Requests that are away, each with its head.
type Away = Vec<(u16, Buffers)>;

/// A ring in which some requests are available, and what another backend wrote of them.
fn taken(bench: &Bench, count: u16) -> Result<(Session, Record, Away), Fault> {
    let (mut session, record) = prepared(bench)?;
    let queue = bench.sample().queue;
    only_first(queue)?;
    let mut away = Vec::new();
    for _ in 0..count {
        let buffers = bench.place(&session)?;
        let head = session.queue_mut(queue).add(buffers.chain())?;
        away.push((head, buffers));
    }
    // Version 1, and as many entries.
    record.write(8, &1u16.to_le_bytes())?;
    record.write(10, &SIZE.to_le_bytes())?;
    for (counter, (head, _)) in (1u64..).zip(&away) {
        let entry = HEAD + ENTRY * u64::from(*head);
        record.write(entry, &[1])?;
        record.write(entry + 8, &counter.to_le_bytes())?;
    }
    Ok((session, record, away))
}

/// These buffers come back, each once, and no others.
fn all_come_back(bench: &Bench, session: &mut Session, mut away: Vec<u16>) -> Verdict {
    let queue = bench.sample().queue;
    while !away.is_empty() {
        let used = session.queue_mut(queue).wait_used()?;
        let known = away.iter().position(|head| *head == used.id);
        let Some(known) = known else {
            return Err(Fault::broken(format!("buffer {} was used twice", used.id)));
        };
        away.swap_remove(known);
    }
    let more = session.queue_mut(queue).wait_used_within(QUIET).ok();
    demand(more.is_none(), || "a buffer was used twice".into())
}

fn resubmitted(bench: &Bench) -> Verdict {
    let (mut session, record, away) = taken(bench, 4)?;
    start(&mut session, &record)?;
    let away = away.iter().map(|(head, _)| *head).collect();
    all_come_back(bench, &mut session, away)?;
    bench.run_sample(&mut session)?;
    Ok(())
}

fn last_batch(bench: &Bench) -> Verdict {
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

/// Processes that are killed.
const KILLS: usize = 10;
/// Requests that are kept away.
const DEPTH: usize = 12;

fn killed(bench: &Bench) -> Verdict {
    let queue = bench.sample().queue;
    let setup = tracked(bench);
    let (mut session, record) = prepared(bench)?;
    start(&mut session, &record)?;
    let mut idle = Vec::new();
    for _ in 0..DEPTH {
        idle.push(bench.place(&session)?);
    }
    let mut away = Away::new();
    for _ in 0..KILLS {
        let moment = Duration::from_micros(bench.random(3000));
        keep_busy(&mut session, queue, &mut idle, &mut away, moment)?;
        bench.kill();
        let (memory, queues) = session.disconnect();
        let next = setup.clone().shared_memory(&memory).queues(0, 0);
        session = next.prepare(bench.connect()?)?.with_queues(queues);
        collect(&mut session, queue, &mut idle, &mut away)?;
        start(&mut session, &record)?;
    }
    let heads = away.iter().map(|(head, _)| *head).collect();
    all_come_back(bench, &mut session, heads)
}

/// Makes requests, and takes back what is done, for so long.
fn keep_busy(
    session: &mut Session,
    queue: usize,
    idle: &mut Vec<Buffers>,
    away: &mut Away,
    time: Duration,
) -> Verdict {
    let begun = std::time::Instant::now();
    while begun.elapsed() < time.min(DEADLINE) {
        while let Some(buffers) = idle.pop() {
            let head = session.queue_mut(queue).submit(buffers.chain())?;
            away.push((head, buffers));
        }
        collect(session, queue, idle, away)?;
    }
    Ok(())
}

fn collect(
    session: &mut Session,
    queue: usize,
    idle: &mut Vec<Buffers>,
    away: &mut Away,
) -> Verdict {
    while let Some(used) = session.queue_mut(queue).poll_used()? {
        let known = away.iter().position(|(head, _)| *head == used.id);
        let Some(known) = known else {
            return Err(Fault::broken(format!("buffer {} was used twice", used.id)));
        };
        idle.push(away.swap_remove(known).1);
    }
    Ok(())
}
