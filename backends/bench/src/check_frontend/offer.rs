//! Backends that offer little, or what nobody can accept.

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};
use vhost_user_wire::features::VHOST_USER_F_PROTOCOL_FEATURES;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::features::accepted;
use super::judge::{gets_on, survives};
use super::offers;
use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{Observation, Offer, Script};
use crate::check::{Fault, Level, Source, Verdict, demand};

macro_rules! offers {
    ($($name:literal, $level:ident, $source:expr, $run:expr, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("offer.", $name),
            level: Level::$level,
            source: $source,
            rule: $rule,
            method: Method::Act($run),
        }),*];
    };
}

const COMPATIBLE: Source = Source::VhostUser("Communication");
const FEATURES: Source = Source::Virtio("2.2.1 Driver Requirements: Feature Bits");

offers! {
    "everything", Should, COMPATIBLE,
        |stage| works(stage, offers::greater(&stage.offer()), gets_on),
        "a back-end that offers much is used, and the front-end does not crash";
    "no-protocol-features", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without(VHOST_USER_F_PROTOCOL_FEATURES), survives),
        "protocol feature bits allow full backwards compatibility: a back-end without them is used, or refused with an error";
    "no-protocol-feature", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().protocol(0), survives),
        "protocol feature bits allow full backwards compatibility: a back-end that has none of them is used, or refused with an error";
    "without-reply-ack", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::REPLY_ACK), gets_on),
        "a back-end without REPLY_ACK serves as well";
    "without-mq", Should, Source::VhostUser("Multiple queue support"),
        |stage| works(stage, stage.offer().without_protocol(Protocol::MQ), gets_on),
        "front-ends must not rely on VHOST_USER_PROTOCOL_F_MQ for devices with a fixed number of virtqueues";
    "without-config", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::CONFIG), survives),
        "a back-end without CONFIG is used, or refused with an error";
    "without-inflight", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::INFLIGHT_SHMFD), gets_on),
        "a back-end without INFLIGHT_SHMFD serves as well";
    "without-memory-slots", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::CONFIGURE_MEM_SLOTS), gets_on),
        "a back-end without CONFIGURE_MEM_SLOTS gets SET_MEM_TABLE";
    "without-status", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::STATUS), gets_on),
        "a back-end without STATUS serves as well";
    "without-backend-requests", Should, COMPATIBLE,
        |stage| works(stage, stage.offer().without_protocol(Protocol::BACKEND_REQ), gets_on),
        "a back-end without BACKEND_REQ serves as well";
    "without-event-idx", Should, FEATURES,
        |stage| works(stage, stage.offer().without(VIRTIO_RING_F_EVENT_IDX), gets_on),
        "the driver goes into backwards compatibility mode if the device does not offer EVENT_IDX";
    "without-indirect", Should, FEATURES,
        |stage| works(stage, stage.offer().without(VIRTIO_RING_F_INDIRECT_DESC), gets_on),
        "the driver goes into backwards compatibility mode if the device does not offer INDIRECT_DESC";
    "least-features", Should, FEATURES, least,
        "a device that offers VERSION_1 alone is used, or refused with an error";
    "nothing", Should, FEATURES, nothing,
        "a device that offers nothing is used as a legacy one, or refused with an error";
    "unknown-features", Must, FEATURES, unknown_features,
        "the driver MUST ignore and MUST NOT accept any feature bit that is marked as reserved, and MUST NOT fail solely because of it";
    "unknown-protocol-features", Must, COMPATIBLE, unknown_protocol,
        "protocol extensions are gated by bits: what a front-end does not know it does not accept, and works without";
    "in-band-alone", Must, Source::VhostUser("In-band notifications"), in_band,
        "it is an error to negotiate INBAND_NOTIFICATIONS without BACKEND_REQ and REPLY_ACK";
    "inflight-base-alone", Must, Source::VhostUser("VHOST_USER_GET_VRING_BASE"), inflight_base,
        "GET_VRING_BASE_INFLIGHT must only be negotiated if INFLIGHT_SHMFD is also negotiated";
    "one-memory-slot", Should, Source::VhostUser("VHOST_USER_GET_MAX_MEM_SLOTS"), one_slot,
        "the back-end says the maximum number of memory slots: with 1 there is one region, or an error";
    "no-queue", Should, Source::VhostUser("Multiple queue support"), no_queue,
        "the front-end should stop when the number of requested queues is bigger than what GET_QUEUE_NUM returns";
    "queues-without-end", Should, Source::VhostUser("Multiple queue support"),
        |stage| works(stage, stage.offer().queues(u64::MAX), survives),
        "a number of queues that there cannot be is refused, or as many are used as are wanted";
}

fn works(stage: &Stage, offer: Offer, judge: fn(&Stage, &Observation) -> Verdict) -> Verdict {
    let seen = stage.play(&offer, Script::default())?;
    judge(stage, &seen)
}

fn least(stage: &Stage) -> Verdict {
    let mut offer = stage.offer();
    offer.features = 1 << VIRTIO_F_VERSION_1 | 1 << VHOST_USER_F_PROTOCOL_FEATURES;
    works(stage, offer, survives)
}

fn nothing(stage: &Stage) -> Verdict {
    let mut offer = stage.offer();
    offer.features = 0;
    works(stage, offer, survives)
}

/// Bits that no version of the specification has a meaning for (section 2.2).
const RESERVED: u64 = 1 << 45 | 1 << 46 | 1 << 47;

fn unknown_features(stage: &Stage) -> Verdict {
    let seen = stage.play(&stage.offer().with(RESERVED), Script::default())?;
    for message in seen.history.seen() {
        if message.is(FrontendReq::SET_FEATURES) {
            let bits = message.body::<u64>().unwrap_or(0) & RESERVED;
            demand(bits == 0, || format!("SET_FEATURES with {bits:#x}"))?;
        }
    }
    gets_on(stage, &seen)
}

/// Bits that the document has no meaning for.
const UNKNOWN_PROTOCOL: u64 = 1 << 40 | 1 << 62;

fn unknown_protocol(stage: &Stage) -> Verdict {
    let offer = stage.offer().with_protocol(UNKNOWN_PROTOCOL);
    let seen = stage.play(&offer, Script::default())?;
    let unknown = Protocol::from_bits_retain(UNKNOWN_PROTOCOL);
    demand(!accepted(&seen.history, unknown)?, || {
        format!("SET_PROTOCOL_FEATURES with bits of {UNKNOWN_PROTOCOL:#x}")
    })?;
    gets_on(stage, &seen)
}

fn in_band(stage: &Stage) -> Verdict {
    let offer = stage
        .offer()
        .protocol(Protocol::INBAND_NOTIFICATIONS.bits());
    let seen = stage.play(&offer, Script::default())?;
    demand(
        !accepted(&seen.history, Protocol::INBAND_NOTIFICATIONS)?,
        || "it accepts INBAND_NOTIFICATIONS alone".into(),
    )
}

/// VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT
const INFLIGHT_BASE: u64 = 1 << 20;

fn inflight_base(stage: &Stage) -> Verdict {
    let offer = stage.offer().without_protocol(Protocol::INFLIGHT_SHMFD);
    let offer = offer.with_protocol(INFLIGHT_BASE);
    let seen = stage.play(&offer, Script::default())?;
    let feature = Protocol::from_bits_retain(INFLIGHT_BASE);
    demand(!accepted(&seen.history, feature)?, || {
        "it accepts GET_VRING_BASE_INFLIGHT without INFLIGHT_SHMFD".into()
    })
}

fn one_slot(stage: &Stage) -> Verdict {
    if !stage.baseline().has(FrontendReq::GET_MAX_MEM_SLOTS) {
        return Err(Fault::skip("it sends no GET_MAX_MEM_SLOTS"));
    }
    let seen = stage.play(&stage.offer().slots(1), Script::default())?;
    let regions = seen.history.seen().iter().map(|it| it.before.regions.len());
    let most = regions.max().unwrap_or(0);
    demand(most <= 1, || format!("{most} regions"))
}

fn no_queue(stage: &Stage) -> Verdict {
    if !stage.baseline().has(FrontendReq::GET_QUEUE_NUM) {
        return Err(Fault::skip("it sends no GET_QUEUE_NUM"));
    }
    let seen = stage.play(&stage.offer().queues(0), Script::default())?;
    demand(seen.history.starts().next().is_none(), || {
        "GET_QUEUE_NUM returned 0, and it starts a ring".into()
    })
}
