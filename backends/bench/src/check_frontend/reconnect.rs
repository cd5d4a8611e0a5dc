//! Another connection behind one that ended.

use vhost::vhost_user::message::FrontendReq;

use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{Act, History, Observation, Seen};
use crate::check::{Fault, Level, Source, Verdict, demand};

macro_rules! reconnects {
    ($($name:literal, $level:ident, $section:literal, $judge:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("reconnect.", $name),
            level: Level::$level,
            source: Source::VhostUser($section),
            rule: $rule,
            method: Method::Act(|stage| {
                let seen = again(stage)?;
                let judge: fn(&Stage, &Observation) -> Verdict = $judge;
                judge(stage, &seen)
            }),
        }),*];
    };
}

reconnects! {
    "negotiates-again", Must, "VHOST_USER_SET_OWNER", |_, seen| negotiated(&seen.history),
        "each connection is a session of its own: features are asked for and set on it";
    "shares-memory-again", Must, "VHOST_USER_SET_MEM_TABLE", |_, seen| shared(&seen.history),
        "each connection is a session of its own: memory is shared on it before rings are set up";
    "gives-inflight-back", Should, "Inflight I/O tracking", |_, seen| inflight(&seen.history),
        "the inflight buffer is sent to the back-end that comes after a crash: the same one";
    "starts-rings-again", Should, "Ring states", |_, seen| restarted(&seen.history),
        "the rings of a running driver are started on the new connection";
}

/// A frontend that was left while a ring was being started, and has connected again.
fn again(stage: &Stage) -> Result<Observation, Fault> {
    let seen = stage.act(FrontendReq::SET_VRING_ENABLE, Act::HangUp)?;
    if seen.history.connections() < 2 {
        return Err(Fault::skip("it does not connect again"));
    }
    Ok(seen)
}

/// The messages of the second connection.
fn second(history: &History) -> impl Iterator<Item = &Seen> {
    history.seen().iter().filter(|seen| seen.connection == 2)
}

fn negotiated(history: &History) -> Verdict {
    let has = |request| second(history).any(|seen| seen.is(request));
    demand(has(FrontendReq::GET_FEATURES), || {
        "there is no GET_FEATURES on the second connection".into()
    })?;
    demand(has(FrontendReq::SET_FEATURES), || {
        "there is no SET_FEATURES on the second connection".into()
    })
}

fn shared(history: &History) -> Verdict {
    let mut starts = second(history).filter(|seen| seen.is(FrontendReq::SET_VRING_ADDR));
    let Some(start) = starts.next() else {
        return Err(Fault::skip("it sets up no ring on the second connection"));
    };
    demand(!start.before.regions.is_empty(), || {
        "rings are set up on the second connection without memory".into()
    })
}

fn inflight(history: &History) -> Verdict {
    let records = |connection| {
        let sent = history.seen().iter();
        let mut sent = sent.filter(move |seen| {
            seen.connection == connection && seen.is(FrontendReq::SET_INFLIGHT_FD)
        });
        sent.next().map(|seen| seen.files.clone())
    };
    let Some(first) = records(1) else {
        return Err(Fault::skip("it sends no SET_INFLIGHT_FD"));
    };
    let again = records(2);
    let identity = |files: &Vec<crate::backend::Attached>| files.first().map(|file| file.identity);
    let is_same = again.as_ref().map(identity) == Some(identity(&first));
    demand(is_same, || {
        format!("the second connection gets another one: {again:?} behind {first:?}")
    })
}

fn restarted(history: &History) -> Verdict {
    demand(history.is_started_on(2), || {
        "no ring is started on the second connection".into()
    })
}
