//! What is in the rings. A driver in a guest writes them; what a frontend gets wrong shows here too.

use super::types::{FrontendCheck, Method};
use crate::backend::{History, Trouble};
use crate::check::{Fault, Level, Source, Verdict};

macro_rules! troubles {
    ($($name:literal, $level:ident, $source:expr, $trouble:ident, $rule:literal;)*) => {
        pub const CHECKS: &[FrontendCheck] = &[$(FrontendCheck {
            name: concat!("ring.", $name),
            level: Level::$level,
            source: $source,
            rule: $rule,
            method: Method::Look(|history| no_trouble(history, Trouble::$trouble)),
        }),*];
    };
}

troubles! {
    "can-be-reached", Must, Source::VhostUser("Memory access"), Unreachable,
        "guest memory can be mapped, and a started ring is in it";
    "kicks-arrive", Must, Source::Virtio("2.7.10.1 Driver Requirements: Available Buffer Notification Suppression"), LostKick,
        "the driver MUST send a notification where the device asks for one: a kick comes for each buffer";
    "index-in-step", Must, Source::Virtio("2.7 Split Virtqueues"), Index,
        "no more buffers are available than the ring has entries";
    "descriptors-in-table", Must, Source::Virtio("2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table"), Descriptor,
        "heads and next fields are within the descriptor table, and drivers MUST ensure that there is no loop";
    "indirect-tables", Must, Source::Virtio("2.7.5.3.1 Driver Requirements: Indirect Descriptors"), Indirect,
        "the driver MUST NOT set VIRTQ_DESC_F_INDIRECT unless VIRTIO_F_INDIRECT_DESC was negotiated, nor within a table, nor together with VIRTQ_DESC_F_NEXT";
    "buffers-in-memory", Must, Source::VhostUser("Memory access"), Buffer,
        "guest addresses map to the vhost memory region containing that guest address: buffers are in regions";
    "readable-first", Must, Source::Virtio("2.7.4.2 Driver Requirements: Message Framing"), Order,
        "the driver MUST place any device-writable descriptor elements after any device-readable descriptor elements";
    "requests-are-whole", Should, Source::Virtio("5.2.6 Device Operation"), Request,
        "a request has its header and its status";
}

fn no_trouble(history: &History, trouble: Trouble) -> Verdict {
    if history.starts().next().is_none() {
        return Err(Fault::skip("it starts no ring"));
    }
    match history.troubles().get(&trouble) {
        Some(text) => Err(Fault::broken(text.clone())),
        None => Ok(()),
    }
}
