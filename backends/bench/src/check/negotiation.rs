//! Features: what is offered, what is accepted, and in which order.

use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vhost_user_wire::features::{self, VHOST_USER_F_PROTOCOL_FEATURES};
use vhost_user_wire::frontend::{
    GetFeatures, GetProtocolFeatures, GetQueueNum, SetFeatures, SetOwner, SetProtocolFeatures,
};
use virtio_bindings::virtio_config::{VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::bench::Bench;
use super::types::{Check, Fault, Level, Need, Source, Verdict, demand};
use crate::device::DeviceType;
use crate::driver::{Answer, Step};

const PF: Need = Need::Feature(
    VHOST_USER_F_PROTOCOL_FEATURES,
    "VHOST_USER_F_PROTOCOL_FEATURES",
);

pub const CHECKS: &[Check] = &[
    Check {
        name: "negotiation.features-reply",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "GET_FEATURES is answered by a reply of the same request, with the reply flag \
               (bit 2), version 1, and a u64",
        needs: &[],
        run: features_reply,
    },
    Check {
        name: "negotiation.version-1",
        level: Level::Must,
        source: Source::Virtio("6.2 Device Requirements: Reserved Feature Bits"),
        rule: "a device MUST offer VIRTIO_F_VERSION_1",
        needs: &[],
        run: version_1,
    },
    Check {
        name: "negotiation.reserved-bits",
        level: Level::Must,
        source: Source::Virtio("2.2.2 Device Requirements: Feature Bits"),
        rule: "the device MUST NOT offer reserved feature bits (31, and 44 to 49)",
        needs: &[],
        run: reserved_bits,
    },
    Check {
        name: "negotiation.protocol-features-first",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_SET_PROTOCOL_FEATURES"),
        rule: "back-ends that report VHOST_USER_F_PROTOCOL_FEATURES must support GET_ and \
               SET_PROTOCOL_FEATURES even before SET_FEATURES was called",
        needs: &[PF],
        run: protocol_features_first,
    },
    Check {
        name: "negotiation.protocol-features-without-owner",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_SET_OWNER"),
        rule: "SET_OWNER can be used as a \"session start\" flag, and QEMU asks for features \
               before it: what the back-end offers can be asked first",
        needs: &[PF],
        run: without_owner,
    },
    Check {
        name: "negotiation.protocol-bits-known",
        level: Level::Should,
        source: Source::VhostUser("Protocol features"),
        rule: "no protocol feature is offered that the document does not define (0 to 22)",
        needs: &[PF],
        run: protocol_bits_known,
    },
    Check {
        name: "negotiation.mq-offered",
        level: Level::Should,
        source: Source::VhostUser("Multiple queue support"),
        rule: "back-ends should always implement VHOST_USER_PROTOCOL_F_MQ, even for devices with \
               a fixed number of virtqueues",
        needs: &[PF],
        run: mq_offered,
    },
    Check {
        name: "negotiation.queue-num",
        level: Level::Must,
        source: Source::VhostUser("VHOST_USER_GET_QUEUE_NUM"),
        rule: "GET_QUEUE_NUM returns how many queues the back-end supports: not fewer than every \
               device of its type has",
        needs: &[Need::Protocol(Protocol::MQ)],
        run: queue_num,
    },
    Check {
        name: "negotiation.least-features",
        level: Level::Should,
        source: Source::Virtio("2.2.2 Device Requirements: Feature Bits"),
        rule: "the device SHOULD accept any valid subset of features: here VIRTIO_F_VERSION_1 \
               alone",
        needs: &[Need::Sample],
        run: least_features,
    },
    Check {
        name: "negotiation.each-ring-feature",
        level: Level::Should,
        source: Source::Virtio("2.2.2 Device Requirements: Feature Bits"),
        rule: "the device SHOULD accept any valid subset of features: here each of \
               INDIRECT_DESC, EVENT_IDX and RING_PACKED that it offers, beside VIRTIO_F_VERSION_1",
        needs: &[Need::Sample],
        run: each_ring_feature,
    },
    Check {
        name: "negotiation.without-protocol-features",
        level: Level::Must,
        source: Source::VhostUser("Ring states"),
        rule: "upon receiving SET_FEATURES without VHOST_USER_F_PROTOCOL_FEATURES set, the \
               back-end must enable all rings immediately",
        needs: &[Need::Sample],
        run: without_protocol_features,
    },
    Check {
        name: "negotiation.no-protocol-features-accepted",
        level: Level::Must,
        source: Source::VhostUser("Communication"),
        rule: "any protocol extensions are gated by protocol feature bits: a frontend that accepts \
               none of them is served",
        needs: &[PF, Need::Sample],
        run: no_protocol_features,
    },
    Check {
        name: "negotiation.unoffered-feature",
        level: Level::Should,
        source: Source::VhostUser("Communication"),
        rule: "a back-end that detects an error such as incompatible features may close the \
               connection; it does not acknowledge features that it does not offer",
        needs: &[Need::Protocol(Protocol::REPLY_ACK)],
        run: unoffered_feature,
    },
    Check {
        name: "negotiation.inband-alone",
        level: Level::Should,
        source: Source::VhostUser("In-band notifications"),
        rule: "the back-end should close the connection as a response to SET_PROTOCOL_FEATURES \
               that sets INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK",
        needs: &[Need::Protocol(Protocol::INBAND_NOTIFICATIONS)],
        run: inband_alone,
    },
    Check {
        name: "negotiation.inflight-base-needs-inflight",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_GET_VRING_BASE"),
        rule: "GET_VRING_BASE_INFLIGHT must only be negotiated if INFLIGHT_SHMFD is: it is not \
               offered alone",
        needs: &[Need::Protocol(Protocol::GET_VRING_BASE_INFLIGHT)],
        run: inflight_base,
    },
    Check {
        name: "negotiation.reset-owner",
        level: Level::Should,
        source: Source::VhostUser("VHOST_USER_RESET_OWNER"),
        rule: "it is recommended that back-ends either ignore RESET_OWNER, or use it to disable \
               all rings: the connection's state is not discarded",
        needs: &[Need::Sample],
        run: reset_owner,
    },
];

fn features_reply(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.send(&GetFeatures)?;
    let reply = frontend.receive()?;
    let header = reply.header;
    demand(header.request == 1, || {
        format!("the reply is to request {}", header.request)
    })?;
    demand(header.is_reply(), || "the reply flag is not set".into())?;
    demand(header.version() == 1, || {
        format!("the reply has version {}", header.version())
    })?;
    demand(header.size == 8, || {
        format!("the reply has {} bytes", header.size)
    })
}

fn version_1(bench: &Bench) -> Verdict {
    let features = bench.connect()?.request(&GetFeatures)?;
    demand(features & 1 << VIRTIO_F_VERSION_1 != 0, || {
        format!("it offers {}", features::names(features, &[]).join(" "))
    })
}

/// Bits that no device of virtio 1.4 and no vhost-user backend may offer. (30 is vhost-user's, 24
/// and 27 are transitional devices', 25 once was a network device's.)
const RESERVED: u64 = 1 << 31 | 0x3f << 44;

fn reserved_bits(bench: &Bench) -> Verdict {
    let features = bench.connect()?.request(&GetFeatures)?;
    demand(features & RESERVED == 0, || {
        let names = features::names(features & RESERVED, &[]);
        format!("it offers {}", names.join(" "))
    })
}

fn protocol_features_first(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.send(&SetOwner)?;
    frontend.request(&GetFeatures)?;
    let protocol = frontend.request(&GetProtocolFeatures)?;
    frontend.send(&SetProtocolFeatures(protocol & Protocol::REPLY_ACK.bits()))?;
    frontend.request(&GetFeatures)?;
    Ok(())
}

fn without_owner(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.request(&GetFeatures)?;
    frontend.request(&GetProtocolFeatures)?;
    Ok(())
}

fn protocol_bits_known(bench: &Bench) -> Verdict {
    let offered = bench.profile().protocol;
    let unknown = offered & !Protocol::all().bits();
    demand(unknown == 0, || {
        format!("it offers {}", features::protocol_names(unknown).join(" "))
    })
}

fn mq_offered(bench: &Bench) -> Verdict {
    let offered = bench.profile();
    demand(offered.has_protocol(Protocol::MQ), || {
        let names = features::protocol_names(offered.protocol);
        format!("it offers {}", names.join(" "))
    })
}

fn queue_num(bench: &Bench) -> Verdict {
    let setup = bench.setup().require_protocol(Protocol::MQ);
    let mut session = setup.prepare(bench.connect()?)?;
    let queues = session.frontend().request(&GetQueueNum)?;
    // Network backends may count pairs, which is how QEMU understands them.
    let least = match bench.profile().device_type {
        DeviceType::NET => 1,
        _ => bench.profile().least_queues() as u64,
    };
    demand(queues >= least, || {
        format!("it has {queues} queues, where each such device has {least}")
    })
}

fn least_features(bench: &Bench) -> Verdict {
    let least = [VIRTIO_F_VERSION_1];
    let setup = bench.setup().require(&least).only_required();
    bench.run_sample(&mut bench.start(&setup)?)?;
    Ok(())
}

fn each_ring_feature(bench: &Bench) -> Verdict {
    let features = [
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_F_RING_PACKED,
    ];
    for feature in features {
        if !bench.profile().has(feature) {
            continue;
        }
        let mut setup = bench.setup();
        if feature == VIRTIO_F_RING_PACKED {
            setup = setup.format(crate::driver::Format::Packed);
        }
        let wanted = [VIRTIO_F_VERSION_1, VHOST_USER_F_PROTOCOL_FEATURES, feature];
        let setup = setup.require(&wanted).only_required();
        bench.run_sample(&mut bench.start(&setup)?)?;
    }
    Ok(())
}

fn without_protocol_features(bench: &Bench) -> Verdict {
    let setup = bench
        .setup()
        .without(&[VHOST_USER_F_PROTOCOL_FEATURES])
        .leave_out(Step::Enable);
    bench.run_sample(&mut bench.start(&setup)?)?;
    Ok(())
}

fn no_protocol_features(bench: &Bench) -> Verdict {
    let setup = bench.setup().without_protocol(Protocol::all());
    bench.run_sample(&mut bench.start(&setup)?)?;
    Ok(())
}

fn unoffered_feature(bench: &Bench) -> Verdict {
    let offered = bench.profile().features;
    // None that the offer itself makes valid, and none that a device might take silently.
    let Some(bit) = (44..50).find(|bit| offered & 1 << bit == 0) else {
        return Err(Fault::skip("it offers every bit that could be used"));
    };
    let mut session = bench
        .setup()
        .require_protocol(Protocol::REPLY_ACK)
        .leave_out(Step::Features)
        .prepare(bench.connect()?)?;
    let features = session.negotiated().features | 1 << bit;
    let answer = session
        .frontend()
        .try_message(2, &features.to_ne_bytes(), &[])?;
    demand(answer != Answer::Acked(0), || {
        format!("SET_FEATURES with bit {bit}, which is not offered, was acknowledged with 0")
    })
}

fn inband_alone(bench: &Bench) -> Verdict {
    let mut frontend = bench.connect()?;
    frontend.send(&SetOwner)?;
    frontend.request(&GetFeatures)?;
    frontend.request(&GetProtocolFeatures)?;
    let alone = Protocol::INBAND_NOTIFICATIONS.bits();
    frontend.send(&SetProtocolFeatures(alone))?;
    demand(!frontend.is_served(), || {
        "the connection is still open".into()
    })
}

fn inflight_base(bench: &Bench) -> Verdict {
    demand(
        bench.profile().has_protocol(Protocol::INFLIGHT_SHMFD),
        || "it offers GET_VRING_BASE_INFLIGHT and not INFLIGHT_SHMFD".into(),
    )
}

fn reset_owner(bench: &Bench) -> Verdict {
    let mut session = bench.start(&bench.setup())?;
    bench.run_sample(&mut session)?;
    // RESET_OWNER has no payload and no reply.
    let header = vhost_user_wire::Header::request(4u32, 0);
    session.frontend().send_message(header, &[], &[])?;
    session.frontend().request(&GetFeatures)?;
    for index in 0..session.queues().len() {
        session.enable(index, true)?;
    }
    bench.run_sample(&mut session)?;
    let features = session.negotiated().features;
    session.frontend().execute(&SetFeatures(features))?;
    Ok(())
}
