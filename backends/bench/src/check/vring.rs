//! The states of a ring: started, stopped, enabled, disabled, and where it begins.

use std::os::fd::AsFd;

use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use vhost_user_wire::frontend::{FrontendMessage, GetFeatures, SetVringCall};
use vhost_user_wire::payload::VringFile;
use vhost_user_wire::{Header, Payload};

use super::bench::Bench;
use super::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::{Buffers, QUIET, Session, Step};

const PF: Need = Need::Feature(
    VHOST_USER_F_PROTOCOL_FEATURES,
    "VHOST_USER_F_PROTOCOL_FEATURES",
);
const STATES: Source = Source::VhostUser("Ring states");
const BASE: Source = Source::VhostUser("VHOST_USER_GET_VRING_BASE");

pub const CHECKS: &[Check] = &[
    Check {
        name: "vring.request",
        level: Level::Must,
        source: STATES,
        rule: "started and enabled: the back-end must process the ring normally, i.e. process \
               all requests and execute them",
        needs: &[Need::Sample],
        run: request,
    },
    Check {
        name: "vring.kick-before-enable",
        level: Level::Must,
        source: STATES,
        rule: "a request that was made available, and kicked for, while the ring was disabled is \
               processed once it is enabled, without another kick",
        needs: &[PF, Need::Sample],
        run: kick_before_enable,
    },
    Check {
        name: "vring.enable-before-start",
        level: Level::Should,
        source: STATES,
        rule: "the enabled/disabled state should still be tracked while the ring is stopped, so \
               it can come into effect once the ring is started",
        needs: &[PF, Need::Sample],
        run: enable_before_start,
    },
    Check {
        name: "vring.not-started",
        level: Level::Must,
        source: STATES,
        rule: "each ring is initialized in a stopped state; while a ring is stopped, the back-end \
               must not process the ring at all, even if it is enabled",
        needs: &[PF, Need::Sample],
        run: not_started,
    },
    Check {
        name: "vring.start-without-a-kick",
        level: Level::Should,
        source: STATES,
        rule: "back-ends SHOULD NOT rely on receiving a kick after SET_VRING_KICK",
        needs: &[Need::Sample],
        run: start_without_kick,
    },
    Check {
        name: "vring.no-call-descriptor",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_VRING_CALL"),
        rule: "the invalid FD flag signals that polling will be used instead of waiting for the \
               call: the ring works without a call descriptor",
        needs: &[Need::Sample],
        run: no_call_descriptor,
    },
    Check {
        name: "vring.call-never-sent",
        level: Level::Should,
        source: STATES,
        rule: "rings are started with SET_VRING_KICK: one for which SET_VRING_CALL was not sent \
               works too",
        needs: &[Need::Sample],
        run: |bench| works_without(bench, Step::Call),
    },
    Check {
        name: "vring.err-never-sent",
        level: Level::Must,
        source: STATES,
        rule: "rings are started with SET_VRING_KICK: error descriptors are optional",
        needs: &[Need::Sample],
        run: |bench| works_without(bench, Step::Err),
    },
    Check {
        name: "vring.call-replaced",
        level: Level::Should,
        source: STATES,
        rule: "while processing the rings, the back-end must support changing some configuration \
               aspects on the fly: QEMU replaces call descriptors when a driver masks its \
               interrupts",
        needs: &[Need::Sample],
        run: call_replaced,
    },
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
        rule: "a ring can be stopped and started any number of times, and nothing is lost or \
               done twice",
        needs: &[Need::Sample],
        run: restart_many_times,
    },
    Check {
        name: "vring.start-at-a-base",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_VRING_BASE"),
        rule: "SET_VRING_BASE sets the next index to process in the Available Ring; the device \
               reads the next index in the Used Ring from guest memory",
        needs: &[Need::Sample],
        run: |bench| start_at(bench, 1000),
    },
    Check {
        name: "vring.start-before-the-wrap",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_VRING_BASE"),
        rule: "the index is free-running and not wrapped by the ring size; it wraps naturally at \
               65536 (virtio 1.4, 2.7.13.3)",
        needs: &[Need::Sample],
        run: |bench| start_at(bench, 65530),
    },
    Check {
        name: "vring.disable-and-enable",
        level: Level::Must,
        source: STATES,
        rule: "rings can be enabled or disabled by SET_VRING_ENABLE: a ring that was disabled for \
               a while works",
        needs: &[PF, Need::Sample],
        run: disable_and_enable,
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
        name: "vring.sizes",
        level: Level::Should,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the Queue Size value is a power of 2, and set by the driver: rings of 4, 16, 128 \
               and 256 descriptors work",
        needs: &[Need::Sample],
        run: sizes,
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

fn request(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    for _ in 0..8 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

/// Waits for one buffer on the sample's queue, and judges it.
fn finish_one(bench: &Bench, session: &mut Session, buffers: &Buffers) -> Verdict {
    let used = session.queue_mut(bench.sample().queue).wait_used()?;
    Ok(bench.judge(session, buffers, used)?)
}

/// Nothing comes back on the sample's queue for a while.
fn nothing_used(bench: &Bench, session: &mut Session, when: &str) -> Verdict {
    // Once it has answered it has seen what was sent before.
    session.frontend().request(&GetFeatures)?;
    let queue = session.queue_mut(bench.sample().queue);
    let used = queue.wait_used_within(QUIET).ok();
    demand(used.is_none(), || format!("a request was processed {when}"))
}

fn kick_before_enable(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup().leave_out(Step::Enable))?;
    let buffers = bench.place(&session)?;
    let queue = bench.sample().queue;
    session.queue_mut(queue).submit(buffers.chain())?;
    session.frontend().request(&GetFeatures)?;
    for index in 0..session.queues().len() {
        session.enable(index, true)?;
    }
    // What it is answered with is left open: a disabled ring may be processed without side effects.
    session.queue_mut(queue).wait_used()?;
    bench.run_sample(&mut session)?;
    Ok(())
}

fn enable_before_start(bench: &Bench) -> Verdict {
    let setup = bench.setup().leave_out(Step::Enable).leave_out(Step::Kick);
    let mut session = bench.start(&setup)?;
    for index in 0..session.queues().len() {
        session.enable(index, true)?;
        session.set_kick(index)?;
    }
    bench.run_sample(&mut session)?;
    Ok(())
}

fn not_started(bench: &Bench) -> Verdict {
    let setup = bench.setup().leave_out(Step::Kick).leave_out(Step::Enable);
    let mut session = bench.start(&setup)?;
    let buffers = bench.place(&session)?;
    let queue = bench.sample().queue;
    session.queue_mut(queue).submit(buffers.chain())?;
    for index in 0..session.queues().len() {
        session.enable(index, true)?;
    }
    nothing_used(bench, &mut session, "before SET_VRING_KICK")
}

fn start_without_kick(bench: &Bench) -> Verdict {
    let queue = bench.sample().queue;
    let mut session = bench.start(&bench.setup().leave_out(Step::Kick))?;
    let buffers = bench.place(&session)?;
    session.queue_mut(queue).add(buffers.chain())?;
    for index in 0..session.queues().len() {
        session.set_kick(index)?;
    }
    finish_one(bench, &mut session, &buffers)
}

fn no_call_descriptor(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup().leave_out(Step::Call).leave_out(Step::Kick))?;
    for index in 0..session.queues().len() {
        let payload = VringFile {
            index: index as u8,
            has_file: false,
        };
        let payload = payload.to_bytes();
        let header = Header::request(SetVringCall::CODE, payload.len());
        session.frontend().send_message(header, &payload, &[])?;
        session.set_kick(index)?;
    }
    for _ in 0..3 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

fn works_without(bench: &Bench, step: Step) -> Verdict {
    let mut session = bench.start(&bench.setup().leave_out(step))?;
    for _ in 0..3 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

fn call_replaced(bench: &Bench) -> Verdict {
    let index = bench.sample().queue;
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    let event = crate::driver::Event::new()?;
    let payload = VringFile {
        index: index as u8,
        has_file: true,
    };
    let file = event.as_fd();
    session
        .frontend()
        .execute(&SetVringCall { payload, file })?;
    session.queue_mut(index).set_notify(true)?;
    event.take();
    bench.run_sample(&mut session)?;
    demand(event.is_set_within(crate::driver::DEADLINE)?, || {
        "no notification came over the new call descriptor".into()
    })
}

/// Runs some requests, then stops their ring.
fn run_and_stop(
    bench: &Bench,
    session: &mut Session,
    count: u32,
) -> Result<u32, super::types::Fault> {
    for _ in 0..count {
        bench.run_sample(session)?;
    }
    Ok(session.stop(bench.sample().queue)?)
}

fn base_counts(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    let base = run_and_stop(bench, &mut session, 5)?;
    demand(base == 5, || format!("the base is {base} after 5 requests"))
}

fn base_echoes_index(bench: &Bench) -> Verdict {
    let index = bench.sample().queue as u32;
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    let state = vhost::vhost_user::message::VhostUserVringState::new(index, 0);
    let request = vhost_user_wire::frontend::GetVringBase(state);
    let reply = session.frontend().request(&request)?;
    let found = reply.index;
    demand(found == index, || {
        format!("the reply has index {found} in place of {index}")
    })
}

/// As many requests as the ring takes, none of which has been kicked for.
fn fill(
    bench: &Bench,
    session: &mut Session,
    most: usize,
) -> Result<Vec<Buffers>, super::types::Fault> {
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

fn start_at(bench: &Bench, base: u32) -> Verdict {
    let mut session = bench.start(&bench.setup().base(base))?;
    for _ in 0..12 {
        bench.run_sample(&mut session)?;
    }
    let index = bench.sample().queue;
    let (found, expected) = (session.stop(index)?, (base + 12) & 0xffff);
    demand(found == expected, || {
        format!("the base is {found} in place of {expected}")
    })
}

fn disable_and_enable(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    for _ in 0..4 {
        bench.run_sample(&mut session)?;
        for index in 0..session.queues().len() {
            session.enable(index, false)?;
            session.enable(index, true)?;
        }
    }
    bench.run_sample(&mut session)?;
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

fn sizes(bench: &Bench) -> Verdict {
    for size in [4, 16, 128, 256] {
        let mut session = bench.start(&bench.setup().queue_size(size))?;
        for _ in 0..6 {
            bench.run_sample(&mut session)?;
        }
    }
    Ok(())
}

fn suspended_is_quiet(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    for index in 0..session.queues().len() {
        session.stop(index)?;
    }
    let memory = std::rc::Rc::clone(session.memory());
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
