//! Requests that are away, and come back once.

use crate::check::bench::Bench;
use crate::check::types::{Fault, Verdict, demand};
use crate::driver::{Buffers, QUIET, Session};

/// Each with its head, or its buffer id.
pub(super) type Away = Vec<(u16, Buffers)>;

pub(super) fn collect(
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

/// These buffers come back, each once, and no others.
pub(super) fn all_come_back(bench: &Bench, session: &mut Session, mut away: Vec<u16>) -> Verdict {
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
