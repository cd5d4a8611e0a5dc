//! One connection after another.

use vhost_user_wire::frontend::GetFeatures;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::bench::Bench;
use super::types::{Check, Level, Need, Source, Verdict};

const COMMUNICATION: Source = Source::VhostUser("Communication");

pub const CHECKS: &[Check] = &[
    Check {
        name: "reconnect.served-again",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "an optional reconnection mechanism can be implemented: a back-end that listens \
               serves one front-end after another",
        needs: &[Need::Reconnects, Need::Sample],
        run: served_again,
    },
    Check {
        name: "reconnect.features-again",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "features are negotiated on each connection: what another one accepted does not \
               count",
        needs: &[Need::Reconnects, Need::Sample],
        run: features_again,
    },
    Check {
        name: "reconnect.same-features",
        level: Level::Should,
        source: Source::Virtio("2.2.2 Device Requirements: Feature Bits"),
        rule: "if a device has successfully negotiated a set of features at least once, then it \
               SHOULD NOT fail re-negotiation of the same set of features",
        needs: &[Need::Reconnects],
        run: same_features,
    },
    Check {
        name: "reconnect.with-requests-away",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "a front-end that leaves with requests in flight does not keep the next one from \
               being served",
        needs: &[Need::Reconnects, Need::Sample],
        run: with_requests_away,
    },
    Check {
        name: "reconnect.same-memory",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_VRING_BASE"),
        rule: "a front-end that comes again with the rings as they are, and the base where they \
               are, is served where it was",
        needs: &[Need::Reconnects, Need::Sample],
        run: same_memory,
    },
    Check {
        name: "reconnect.twenty-times",
        level: Level::Should,
        source: COMMUNICATION,
        rule: "a back-end that listens serves any number of front-ends, one after another",
        needs: &[Need::Reconnects],
        run: twenty_times,
    },
];

fn served_again(bench: &Bench) -> Verdict {
    for _ in 0..3 {
        let mut session = bench.start(&bench.setup())?;
        bench.run_sample(&mut session)?;
    }
    Ok(())
}

fn features_again(bench: &Bench) -> Verdict {
    let features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC];
    for round in 0..4 {
        let setup = bench.setup();
        let setup = if round % 2 == 0 {
            setup
        } else {
            setup.without(&features)
        };
        let mut session = bench.start(&setup)?;
        for _ in 0..3 {
            let index = bench.sample().queue;
            session.queue(index).forget_notifications();
            session.queue_mut(index).set_notify(true)?;
            bench.run_sample(&mut session)?;
            session.queue_mut(index).wait_notified()?;
        }
    }
    Ok(())
}

fn same_features(bench: &Bench) -> Verdict {
    let first = bench.setup().prepare(bench.connect()?)?.negotiated();
    let second = bench.setup().prepare(bench.connect()?)?.negotiated();
    super::types::demand(first.features == second.features, || {
        format!("first {:#x}, then {:#x}", first.features, second.features)
    })
}

fn with_requests_away(bench: &Bench) -> Verdict {
    for _ in 0..5 {
        let mut session = bench.start(&bench.setup())?;
        for _ in 0..8 {
            let buffers = bench.place(&session)?;
            session
                .queue_mut(bench.sample().queue)
                .add(buffers.chain())?;
        }
        session.queue(bench.sample().queue).kick();
    }
    bench.run_sample(&mut bench.start(&bench.setup())?)?;
    Ok(())
}

fn same_memory(bench: &Bench) -> Verdict {
    let setup = bench.setup();
    let mut session = bench.start(&setup)?;
    for _ in 0..3 {
        for _ in 0..3 {
            bench.run_sample(&mut session)?;
        }
        let bases: Vec<_> = session.queues().iter().map(|queue| queue.base()).collect();
        let (memory, queues) = session.disconnect();
        let next = setup.clone().shared_memory(&memory).queues(0, 0);
        session = next.prepare(bench.connect()?)?.with_queues(queues);
        session.share_memory()?;
        for (index, base) in bases.into_iter().enumerate() {
            session.restart(index, base)?;
            session.queue(index).kick();
        }
    }
    bench.run_sample(&mut session)?;
    Ok(())
}

fn twenty_times(bench: &Bench) -> Verdict {
    for _ in 0..20 {
        bench.connect()?.request(&GetFeatures)?;
    }
    Ok(())
}
