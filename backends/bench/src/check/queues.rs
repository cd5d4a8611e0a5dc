//! Several queues.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::Payload;
use vhost_user_wire::frontend::{FrontendMessage, SetVringNum};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Buffers, QUIET, Session};

const MQ: Source = Source::VhostUser("Multiple queue support");

pub const CHECKS: &[Check] = &[
    Check {
        name: "queues.all",
        level: Level::Must,
        source: MQ,
        rule: "GET_QUEUE_NUM returns the max number of queues the back-end supports: each of them \
               can be set up and started (64 are tried)",
        needs: &[Need::Protocol(Protocol::MQ)],
        run: all,
    },
    Check {
        name: "queues.each-serves",
        level: Level::Must,
        source: MQ,
        rule: "the front-end uses a unique index for each queue: a request on each is processed",
        needs: &[Need::Protocol(Protocol::MQ), Need::Sample, Need::Queues(2)],
        run: each_serves,
    },
    Check {
        name: "queues.stop-one",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "GET_VRING_BASE stops the specified vring, and no other",
        needs: &[Need::Protocol(Protocol::MQ), Need::Sample, Need::Queues(2)],
        run: stop_one,
    },
    Check {
        name: "queues.disable-one",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_VRING_ENABLE"),
        rule: "SET_VRING_ENABLE enables or disables the corresponding vring, and no other",
        needs: &[Need::Protocol(Protocol::MQ), Need::Sample, Need::Queues(2)],
        run: disable_one,
    },
    Check {
        name: "queues.one-too-many",
        level: Level::Should,
        source: MQ,
        rule: "the front-end should stop when the number of requested queues is bigger than \
               GET_QUEUE_NUM returned: the first queue beyond is refused",
        needs: &[
            Need::Protocol(Protocol::MQ),
            Need::Protocol(Protocol::REPLY_ACK),
        ],
        run: one_too_many,
    },
];

fn all(bench: &Bench) -> Verdict {
    let count = bench.profile().queues.min(64);
    let layout = crate::driver::Layout::new(0, (count as u64 + 1) << 16);
    let setup = bench.setup().queues(count, 16).memory(&[layout]);
    let mut session = bench.start(&setup.require_protocol(Protocol::MQ))?;
    for index in 0..count {
        session.stop(index)?;
    }
    Ok(())
}

/// A session of two queues on which the sample can be made.
fn pair(bench: &Bench) -> Result<(Session, [usize; 2]), Fault> {
    if bench.profile().device_type != DeviceType::BLK {
        return Err(Fault::skip("the queues of this type are not alike"));
    }
    let setup = bench.setup().queues(2, 64).require_protocol(Protocol::MQ);
    Ok((bench.start(&setup)?, [0, 1]))
}

fn run_on(bench: &Bench, session: &mut Session, index: usize) -> Verdict {
    let sample = bench.sample();
    let buffers = Buffers::place(session.memory(), &sample.readable, sample.writable)?;
    let used = session.run(index, &buffers)?;
    Ok(bench.judge(session, &buffers, used)?)
}

fn each_serves(bench: &Bench) -> Verdict {
    let (mut session, queues) = pair(bench)?;
    for _ in 0..3 {
        for index in queues {
            run_on(bench, &mut session, index)?;
        }
    }
    Ok(())
}

fn stop_one(bench: &Bench) -> Verdict {
    let (mut session, [first, second]) = pair(bench)?;
    run_on(bench, &mut session, first)?;
    session.stop(first)?;
    run_on(bench, &mut session, second)?;
    let base = session.stop(second)?;
    demand(base == 1, || format!("the base of the other is {base}"))
}

fn disable_one(bench: &Bench) -> Verdict {
    let (mut session, [first, second]) = pair(bench)?;
    session.enable(first, false)?;
    run_on(bench, &mut session, second)?;
    session.enable(first, true)?;
    run_on(bench, &mut session, first)?;
    let more = session.queue_mut(second).wait_used_within(QUIET).ok();
    demand(more.is_none(), || "a buffer was used twice".into())
}

fn one_too_many(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::MQ);
    let mut session = setup.prepare(bench.connect()?)?;
    let beyond = bench.profile().queues as u32;
    let payload = VhostUserVringState::new(beyond, 64).to_bytes();
    let code = SetVringNum::CODE.into();
    let answer = session.frontend().try_message(code, &payload, &[])?;
    demand(answer.is_refusal(), || {
        format!("SET_VRING_NUM for queue {beyond}: {answer:?}")
    })
}
