//! Processes that are killed with requests in flight.

use std::time::{Duration, Instant};

use super::away::{Away, all_come_back, collect};
use super::record::{prepared, start, tracked};
use crate::check::bench::Bench;
use crate::check::types::Verdict;
use crate::driver::{Buffers, DEADLINE, Format, Session};

/// Processes that are killed.
const KILLS: usize = 10;
/// Requests that are kept away.
const DEPTH: usize = 12;

pub(super) fn split(bench: &Bench) -> Verdict {
    killed(bench, Format::Split)
}

pub(super) fn packed(bench: &Bench) -> Verdict {
    killed(bench, Format::Packed)
}

fn killed(bench: &Bench, format: Format) -> Verdict {
    let queue = bench.sample().queue;
    let setup = tracked(bench, format);
    let (mut session, record) = prepared(bench, format)?;
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
    let begun = Instant::now();
    while begun.elapsed() < time.min(DEADLINE) {
        while let Some(buffers) = idle.pop() {
            let head = session.queue_mut(queue).submit(buffers.chain())?;
            away.push((head, buffers));
        }
        collect(session, queue, idle, away)?;
    }
    Ok(())
}
