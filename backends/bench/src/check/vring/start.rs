//! Rings that start, at which place, and are enabled.

use vhost_user_wire::frontend::GetFeatures;

use super::steps::{PF, STATES, finish_one, nothing_used};
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::Step;

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
        rule: "started and disabled: the back-end must process the ring without causing any side \
               effects; one that was made available, and kicked for, while the ring was disabled \
               comes back at the latest once it is enabled, without another kick",
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
        name: "vring.sizes",
        level: Level::Should,
        source: Source::Virtio("2.7 Split Virtqueues"),
        rule: "the Queue Size value is a power of 2, and set by the driver: rings of 4, 16, 128 \
               and 256 descriptors work",
        needs: &[Need::Sample],
        run: sizes,
    },
];

fn request(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    for _ in 0..8 {
        bench.run_sample(&mut session)?;
    }
    Ok(())
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

fn sizes(bench: &Bench) -> Verdict {
    for size in [4, 16, 128, 256] {
        let mut session = bench.start(&bench.setup().queue_size(size))?;
        for _ in 0..6 {
            bench.run_sample(&mut session)?;
        }
    }
    Ok(())
}
