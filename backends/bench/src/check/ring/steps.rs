//! What the checks of virtqueues have in common.

use super::super::bench::Bench;
use super::super::types::{Fault, Verdict};
use crate::driver::{Buffers, Chain, Format, Session, Setup};

pub fn setup(bench: &Bench, format: Format) -> Setup {
    bench.setup().format(format)
}

/// A session and one sample's buffers, which can be used again and again.
pub fn start(bench: &Bench, setup: &Setup) -> Result<(Session, Buffers), Fault> {
    let session = bench.start(setup)?;
    let buffers = bench.place(&session)?;
    Ok((session, buffers))
}

/// Runs the sample in these buffers again.
pub fn again(bench: &Bench, session: &mut Session, buffers: &Buffers, chain: &Chain) -> Verdict {
    buffers.refill(session.memory(), 0)?;
    let used = session.queue_mut(bench.sample().queue).run(chain)?;
    Ok(bench.judge(session, buffers, used)?)
}

/// Nothing has been written that the device may not write.
pub fn no_stray(session: &Session) -> Verdict {
    match session.memory().stray()? {
        Some(stray) => Err(Fault::broken(stray.to_string())),
        None => Ok(()),
    }
}
