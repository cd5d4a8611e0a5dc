//! What checks of messages have in common.

use std::io::PipeReader;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::GetFeatures;

use crate::check::bench::Bench;
use crate::check::types::{Fault, Verdict, demand};
use crate::driver::{DEADLINE, Session};

pub fn acknowledged(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::REPLY_ACK);
    Ok(setup.prepare(bench.connect()?)?)
}

pub fn refused(bench: &Bench, code: u32, payload: &[u8]) -> Verdict {
    let mut session = acknowledged(bench)?;
    let answer = session.frontend().try_message(code, payload, &[])?;
    demand(answer.is_refusal(), || format!("{answer:?}"))
}

/// A new connection is served, in time for somebody who has just been refused another.
pub fn next_is_served(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.request(&GetFeatures)?;
    Ok(())
}

/// Whether the last write end of a pipe is closed, in time.
pub fn all_writers_gone(reader: &PipeReader) -> bool {
    let deadline = Timespec::try_from(DEADLINE).ok();
    let mut fds = [PollFd::new(reader, PollFlags::IN)];
    poll(&mut fds, deadline.as_ref()).is_ok_and(|ready| ready > 0)
}
