//! The device's status and its reset.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::frontend::{GetStatus, ResetDevice, SetFeatures, SetStatus};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::driver::{Format, QUIET, Session, Step};

const STATUS: Need = Need::Protocol(Protocol::STATUS);
const RESET: Need = Need::Protocol(Protocol::RESET_DEVICE);
const RESET_DEVICE: Source = Source::VhostUser("VHOST_USER_RESET_DEVICE");

pub const CHECKS: &[Check] = &[
    Check {
        name: "status.kept",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_STATUS"),
        rule: "GET_STATUS queries the back-end for its device status: the bits that SET_STATUS \
               set are in it",
        needs: &[STATUS],
        run: kept,
    },
    Check {
        name: "status.starts-at-zero",
        level: Level::Must,
        source: Source::Virtio("2.1 Device Status Field"),
        rule: "the device status field starts out as 0",
        needs: &[STATUS, Need::Restarts],
        run: starts_at_zero,
    },
    Check {
        name: "status.zero-resets",
        level: Level::Must,
        source: Source::Virtio("2.4.1 Device Requirements: Device Reset"),
        rule: "a device MUST reinitialize device status to 0 after receiving a reset",
        needs: &[STATUS],
        run: zero_resets,
    },
    Check {
        name: "status.no-needs-reset",
        level: Level::Must,
        source: Source::Virtio("2.1 Device Status Field"),
        rule: "DEVICE_NEEDS_RESET indicates that the device has experienced an error from which \
               it can't recover: it is not set after requests that went well",
        needs: &[STATUS, Need::Sample],
        run: no_needs_reset,
    },
    Check {
        name: "status.needs-reset-of-a-broken-ring",
        level: Level::Should,
        source: Source::Virtio("2.1.2 Device Requirements: Device Status Field"),
        rule: "the device SHOULD set DEVICE_NEEDS_RESET when it enters an error state that a reset \
               is needed: more buffers available than the ring has entries",
        needs: &[STATUS, Need::Sample],
        run: needs_reset,
    },
    Check {
        name: "reset.then-set-up-again",
        level: Level::Must,
        source: RESET_DEVICE,
        rule: "reset all internal device state to the initial state, ready to be reinitialized",
        needs: &[RESET, Need::Sample],
        run: set_up_again,
    },
    Check {
        name: "reset.rings-are-quiet",
        level: Level::Must,
        source: RESET_DEVICE,
        rule: "ask the back-end to disable all rings: a request that comes after it is not executed",
        needs: &[RESET, Need::Sample],
        run: rings_are_quiet,
    },
    Check {
        name: "reset.with-requests-away",
        level: Level::Must,
        source: Source::Virtio("2.4.1 Device Requirements: Device Reset"),
        rule: "a device MUST NOT send notifications or interact with the queues after indicating \
               completion of the reset, until the driver re-initializes the device",
        needs: &[RESET, Need::Sample],
        run: with_requests_away,
    },
];

/// How often, [`QUIET`] apart, it is looked whether a device has noticed.
const LOOKS: usize = 20;

const NEEDS_RESET: u64 = 64;
/// ACKNOWLEDGE and DRIVER.
const BEGUN: u64 = 3;

fn status(session: &mut Session) -> Result<u64, Fault> {
    Ok(session.frontend().request(&GetStatus)?)
}

fn prepared(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::STATUS);
    Ok(setup.prepare(bench.connect()?)?)
}

fn kept(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    let found = status(&mut session)?;
    // FEATURES_OK is the device's to take back.
    demand(found & BEGUN == BEGUN, || {
        format!("it is {found:#x} after SET_STATUS of 0xb")
    })
}

fn starts_at_zero(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::STATUS);
    let mut session = setup.leave_out(Step::Status).prepare(bench.connect()?)?;
    let found = status(&mut session)?;
    demand(found == 0, || format!("it is {found:#x}"))
}

fn zero_resets(bench: &Bench) -> Verdict {
    let mut session = prepared(bench)?;
    session.frontend().execute(&SetStatus(0))?;
    let found = status(&mut session)?;
    demand(found == 0, || format!("it is {found:#x}"))?;
    session.frontend().execute(&SetStatus(BEGUN))?;
    let found = status(&mut session)?;
    demand(found == BEGUN, || format!("then it is {found:#x}"))
}

fn no_needs_reset(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::STATUS);
    let mut session = bench.start(&setup)?;
    for _ in 0..4 {
        bench.run_sample(&mut session)?;
    }
    let found = status(&mut session)?;
    demand(found & NEEDS_RESET == 0, || format!("it is {found:#x}"))
}

fn needs_reset(bench: &Bench) -> Verdict {
    let setup = bench.setup().format(Format::Split);
    let setup = setup.require_protocol(Protocol::STATUS);
    let mut session = bench.start(&setup)?;
    let queue = bench.sample().queue;
    let driver = session.queue(queue).places().driver;
    session.memory().store_u16(driver + 2, 0x7000)?;
    session.queue(queue).kick();
    let mut found = 0;
    for _ in 0..LOOKS {
        found = status(&mut session)?;
        if found & NEEDS_RESET != 0 {
            return Ok(());
        }
        _ = session.queue(queue).is_notified_within(QUIET)?;
    }
    Err(Fault::broken(format!("it is {found:#x}")))
}

fn started(bench: &Bench) -> Result<Session, Fault> {
    let setup = bench.setup().require_protocol(Protocol::RESET_DEVICE);
    Ok(bench.start(&setup)?)
}

fn set_up_again(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    for _ in 0..3 {
        bench.run_sample(&mut session)?;
        let bases: Vec<_> = session.queues().iter().map(|queue| queue.base()).collect();
        session.frontend().execute(&ResetDevice)?;
        let features = session.negotiated().features;
        session.frontend().execute(&SetFeatures(features))?;
        session.share_memory()?;
        for (index, base) in bases.into_iter().enumerate() {
            session.restart(index, base)?;
        }
        session.report_driver_ok()?;
        session.queues().iter().for_each(|queue| queue.kick());
    }
    bench.run_sample(&mut session)?;
    Ok(())
}

fn rings_are_quiet(bench: &Bench) -> Verdict {
    let mut session = started(bench)?;
    bench.run_sample(&mut session)?;
    session.frontend().execute(&ResetDevice)?;
    let queue = bench.sample().queue;
    let buffers = bench.place(&session)?;
    session.queue_mut(queue).submit(buffers.chain())?;
    let used = session.queue_mut(queue).wait_used_within(QUIET).ok();
    demand(used.is_none(), || "a request was executed".into())
}

fn with_requests_away(bench: &Bench) -> Verdict {
    let queue = bench.sample().queue;
    for _ in 0..5 {
        let mut session = started(bench)?;
        for _ in 0..8 {
            let buffers = bench.place(&session)?;
            session.queue_mut(queue).add(buffers.chain())?;
        }
        session.queue(queue).kick();
        session.frontend().execute(&ResetDevice)?;
        while session.queue_mut(queue).poll_used()?.is_some() {}
        session.queue(queue).forget_notifications();
        let late = session.queue_mut(queue).wait_used_within(QUIET).is_ok();
        demand(!late, || "a buffer was used after the reset".into())?;
        let notified = session.queue(queue).is_notified()?;
        demand(!notified, || "a notification came after the reset".into())?;
    }
    Ok(())
}
