//! A device that breaks its rings. What becomes of the guest is the driver's matter.

use super::judge::survives;
use super::types::{FrontendCheck, Method};
use crate::backend::{RingFault, Script};
use crate::check::{Level, Source};

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
