//! Rings that stop, what GET_VRING_BASE returns, and how they resume.

use std::rc::Rc;

use vhost::vhost_user::message::VhostUserVringState;
use vhost_user_wire::frontend::{GetFeatures, GetVringBase};

use super::steps::{BASE, STATES, fill, finish_one, nothing_used, run_and_stop};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::QUIET;

pub const CHECKS: &[Check] = &[
    Check {
        name: "vring.base-counts-requests",
        level: Level::Must,
        source: BASE,
        rule: "for a split virtqueue, GET_VRING_BASE returns the 16-bit next descriptor index to \
               process in the Available Ring",
        needs: &[Need::Sample],
        run: base_counts,
    },
    Check {
        name: "vring.base-echoes-index",
        level: Level::Must,
        source: BASE,
        rule: "the reply payload has the index of the respective virtqueue",
        needs: &[Need::Sample],
        run: base_echoes_index,
    },
    Check {
        name: "vring.base-drains",
        level: Level::Must,
        source: BASE,
        rule: "by default, the back-end must complete all inflight I/O requests for the specified \
               vring before stopping it: what it took is used when it answers, and nothing later",
        needs: &[Need::Sample],
        run: base_drains,
    },
    Check {
        name: "vring.stopped-stays-stopped",
        level: Level::Must,
        source: STATES,
        rule: "while a ring is stopped, the back-end must not process the ring at all: a request \
               and a kick after GET_VRING_BASE",
        needs: &[Need::Sample],
        run: stopped_stays_stopped,
    },
    Check {
        name: "vring.restart",
        level: Level::Must,
        source: STATES,
        rule: "a stopped ring enters the started state again with SET_VRING_KICK and the back-end \
               resumes processing requests: those that came meanwhile, too",
        needs: &[Need::Sample],
        run: restart,
    },
    Check {
        name: "vring.restart-many-times",
        level: Level::Must,
        source: STATES,
        rule: "a stopped ring enters the started state again with SET_VRING_KICK and the back-end \
               resumes processing requests: twenty times, each with requests on their way, of \
               which none is lost or done twice",
        needs: &[Need::Sample],
        run: restart_many_times,
    },
    Check {
        name: "vring.base-of-a-ring-never-started",
        level: Level::Should,
        source: BASE,
        rule: "GET_VRING_BASE is answered also for a ring that was not started",
        needs: &[],
        run: base_never_started,
    },
    Check {
        name: "vring.stopped-twice",
        level: Level::Should,
        source: BASE,
        rule: "GET_VRING_BASE is answered also for a ring that is stopped, with the same base",
        needs: &[Need::Sample],
        run: stopped_twice,
    },
    Check {
        name: "vring.suspended-device-is-quiet",
        level: Level::Must,
        source: Source::VhostUser("Suspended device state"),
        rule: "while all vrings are stopped, the device must not write to any guest memory \
               regions, not send any notifications to the guest, still process and reply to \
               messages from the front-end",
        needs: &[Need::Sample],
        run: suspended_is_quiet,
    },
];

fn base_counts(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    let base = run_and_stop(bench, &mut session, 5)?;
    demand(base == 5, || format!("the base is {base} after 5 requests"))
}

fn base_echoes_index(bench: &Bench) -> Verdict {
    let index = bench.sample().queue as u32;
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    let state = VhostUserVringState::new(index, 0);
    let request = GetVringBase(state);
    let reply = session.frontend().request(&request)?;
    let found = reply.index;
    demand(found == index, || {
        format!("the reply has index {found} in place of {index}")
    })
}

fn base_drains(bench: &Bench) -> Verdict {
    let index = bench.sample().queue;
    for _ in 0..8 {
        let mut session = bench.start(&bench.setup())?;
        fill(bench, &mut session, 16)?;
        session.queue(index).kick();
        let base = session.stop(index)?;
        let mut used = 0;
        while session.queue_mut(index).poll_used()?.is_some() {
            used += 1;
        }
        demand(base == used, || {
            format!("the base is {base}, and {used} buffers were used when it was returned")
        })?;
        let late = session.queue_mut(index).wait_used_within(QUIET).is_ok();
        demand(!late, || {
            "a buffer was used after GET_VRING_BASE was answered".into()
        })?;
    }
    Ok(())
}

fn stopped_stays_stopped(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    run_and_stop(bench, &mut session, 2)?;
    let buffers = bench.place(&session)?;
    session
        .queue_mut(bench.sample().queue)
        .submit(buffers.chain())?;
    nothing_used(bench, &mut session, "after GET_VRING_BASE")
}

fn restart(bench: &Bench) -> Verdict {
    let index = bench.sample().queue;
    let mut session = bench.start(&bench.setup())?;
    let base = run_and_stop(bench, &mut session, 3)?;
    let buffers = bench.place(&session)?;
    session.queue_mut(index).add(buffers.chain())?;
    session.restart(index, base)?;
    session.queue(index).kick();
    finish_one(bench, &mut session, &buffers)?;
    bench.run_sample(&mut session)?;
    Ok(())
}

fn restart_many_times(bench: &Bench) -> Verdict {
    let index = bench.sample().queue;
    let mut session = bench.start(&bench.setup())?;
    for _ in 0..20 {
        let waiting = fill(bench, &mut session, 3)?;
        session.queue(index).kick();
        let base = session.stop(index)?;
        session.restart(index, base)?;
        session.queue(index).kick();
        for _ in &waiting {
            session.queue_mut(index).wait_used()?;
        }
        let more = session.queue_mut(index).poll_used()?;
        demand(more.is_none(), || "a buffer was used twice".into())?;
    }
    Ok(())
}

fn base_never_started(bench: &Bench) -> Verdict {
    let mut session = bench.setup().prepare(bench.connect()?)?;
    session.stop(0)?;
    Ok(())
}

fn stopped_twice(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    let first = run_and_stop(bench, &mut session, 2)?;
    let second = session.stop(bench.sample().queue)?;
    demand(first == second, || {
        format!("the base is {first}, then {second}")
    })
}

fn suspended_is_quiet(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    for index in 0..session.queues().len() {
        session.stop(index)?;
    }
    let memory = Rc::clone(session.memory());
    session
        .queues()
        .iter()
        .for_each(|queue| queue.forget_notifications());
    let before = memory.read(0, 1 << 20)?;
    session.queues().iter().for_each(|queue| queue.kick());
    session.frontend().request(&GetFeatures)?;
    for queue in session.queues() {
        let notified = queue.is_notified_within(QUIET)?;
        demand(!notified, || {
            format!("queue {} was notified of", queue.index())
        })?;
    }
    let after = memory.read(0, 1 << 20)?;
    let changed = before
        .iter()
        .zip(&after)
        .position(|(before, after)| before != after);
    demand(changed.is_none(), || {
        format!("guest memory changed at {:#x}", changed.unwrap_or(0))
    })?;
    session.frontend().request(&GetFeatures)?;
    Ok(())
}
