//! The descriptors by which a ring's two sides hear of each other.

use std::os::fd::AsFd;

use vhost_user_wire::frontend::{FrontendMessage, SetVringCall};
use vhost_user_wire::payload::VringFile;
use vhost_user_wire::{Header, Payload};

use super::steps::STATES;
use crate::check::bench::Bench;
use crate::check::types::{Check, Level, Need, Source, Verdict, demand};
use crate::driver::{DEADLINE, Event, Step};

pub const CHECKS: &[Check] = &[
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
];

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
    let event = Event::new()?;
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
    demand(event.is_set_within(DEADLINE)?, || {
        "no notification came over the new call descriptor".into()
    })
}
