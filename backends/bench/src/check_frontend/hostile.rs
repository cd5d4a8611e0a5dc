//! A device that breaks its rings. What becomes of the guest is the driver's matter.

use super::judge::survives;
use super::stage::Stage;
use super::types::{FrontendCheck, Method};
use crate::backend::{RingFault, Script};
use crate::check::{Fault, Level, Source, Verdict};
use virtio_bindings::virtio_config::VIRTIO_F_RING_PACKED;

macro_rules! faults {
    ($($name:literal, $source:expr, $fault:ident, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("hostile.", $name),
            level: Level::Should,
            source: $source,
            rule: $rule,
            method: Method::Act(|stage| {
                let seen = stage.run(Script::ring(RingFault::$fault), || "it makes no request".into())?;
                survives(stage, &seen)
            }),
        }),*];
    };
}

macro_rules! packed_faults {
    ($($name:literal, $source:expr, $fault:ident, $rule:literal;)*) => {
        pub const PACKED_CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("packed.", $name),
            level: Level::Should,
            source: $source,
            rule: $rule,
            method: Method::Act(|stage| play_packed(stage, RingFault::$fault)),
        }),*];
    };
}

const USED: Source = Source::Virtio("2.7.8 The Virtqueue Used Ring");

faults! {
    "used-index-jumps", USED, IndexJumps,
        "a used index that moves by more than the ring has does not crash the front-end";
    "used-id-too-large", USED, IdTooLarge,
        "a used id beyond the descriptor table does not crash the front-end";
    "used-twice", USED, UsedTwice,
        "a buffer that is used twice does not crash the front-end";
    "used-length-too-long", USED, LengthTooLong,
        "a used length of 4 GiB does not crash the front-end";
    "spurious-call", Source::Virtio("2.7.7.1 Driver Requirements: Used Buffer Notification Suppression"), CallWithoutUse,
        "the driver MUST handle spurious notifications from the device";
    "nothing-used", USED, Silence,
        "requests that are never completed do not keep the front-end from ending when it is asked to (SIGTERM)";
}

const PACKED_USED: Source = Source::Virtio("2.8.22 Receiving Used Buffers From The Device");

packed_faults! {
    "used-id-unknown", PACKED_USED, IdTooLarge,
        "a used buffer id that no buffer has does not crash the front-end";
    "used-twice", PACKED_USED, UsedTwice,
        "a buffer that is used twice does not crash the front-end";
    "used-without-end", PACKED_USED, IndexJumps,
        "more used descriptors than there are available ones do not crash the front-end";
    "used-length-too-long", Source::Virtio("2.8.4 Element Address and Length"), LengthTooLong,
        "a used length of 4 GiB does not crash the front-end";
}

fn play_packed(stage: &Stage, fault: RingFault) -> Verdict {
    let offer = stage.offer().with(1 << VIRTIO_F_RING_PACKED);
    let seen = stage.play(&offer, Script::ring(fault))?;
    let mut messages = seen.history.seen().iter();
    if !messages.any(|message| message.before.is_packed()) {
        return Err(Fault::skip("it does not negotiate RING_PACKED"));
    }
    if !seen.history.has_acted() {
        return Err(Fault::skip("it makes no request"));
    }
    survives(stage, &seen)
}
