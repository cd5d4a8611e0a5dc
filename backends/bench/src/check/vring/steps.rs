//! What checks of ring states do in more than one place.

use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::frontend::GetFeatures;

use crate::check::bench::Bench;
use crate::check::types::{Fault, Need, Source, Verdict, demand};
use crate::driver::{Buffers, QUIET, Session};

pub const PF: Need = Need::Feature(
    VHOST_USER_F_PROTOCOL_FEATURES,
    "VHOST_USER_F_PROTOCOL_FEATURES",
);
pub const STATES: Source = Source::VhostUser("Ring states");
pub const BASE: Source = Source::VhostUser("VHOST_USER_GET_VRING_BASE");

/// Waits for one buffer on the sample's queue, and judges it.
pub fn finish_one(bench: &Bench, session: &mut Session, buffers: &Buffers) -> Verdict {
    let used = session.queue_mut(bench.sample().queue).wait_used()?;
    Ok(bench.judge(session, buffers, used)?)
}

/// Nothing comes back on the sample's queue for a while.
pub fn nothing_used(bench: &Bench, session: &mut Session, when: &str) -> Verdict {
    // Once it has answered it has seen what was sent before.
    session.frontend().request(&GetFeatures)?;
    let queue = session.queue_mut(bench.sample().queue);
    let used = queue.wait_used_within(QUIET).ok();
    demand(used.is_none(), || format!("a request was processed {when}"))
}

/// Runs some requests, then stops their ring.
pub fn run_and_stop(bench: &Bench, session: &mut Session, count: u32) -> Result<u32, Fault> {
    for _ in 0..count {
        bench.run_sample(session)?;
    }
    Ok(session.stop(bench.sample().queue)?)
}

/// As many requests as the ring takes, none of which has been kicked for.
pub fn fill(bench: &Bench, session: &mut Session, most: usize) -> Result<Vec<Buffers>, Fault> {
    let index = bench.sample().queue;
    let mut all = Vec::new();
    for _ in 0..most {
        let buffers = bench.place(session)?;
        if session.queue(index).free() < buffers.chain().descriptors() {
            break;
        }
        session.queue_mut(index).add(buffers.chain())?;
        all.push(buffers);
    }
    Ok(all)
}
