//! What the log says about one device and its backends: so much in some time.

use std::time::Duration;

use crate::virtio::rate_limit::RateLimit;

/// Log lines about backends that come and go: this many in this time.
const BACKENDS: RateLimit = RateLimit::new(20, Duration::from_secs(10));
/// The same about errors that backends report. A guest can make them do so at will.
const RINGS: RateLimit = RateLimit::new(4, Duration::from_secs(10));

/// The warnings about one device.
pub struct Warnings {
    device: String,
    backends: RateLimit,
    rings: RateLimit,
}

impl Warnings {
    pub fn new(device: String) -> Self {
        Self {
            device,
            backends: BACKENDS,
            rings: RINGS,
        }
    }

    /// `what` has happened, because of `error`.
    pub fn warn(&mut self, error: &(dyn std::error::Error + 'static), what: &str) {
        if let Some(suppressed) = self.backends.admit() {
            let device = &self.device;
            tracing::warn!(device, suppressed, error, "{what}");
        }
    }

    /// A backend with these features has come, after so long.
    pub fn back(&mut self, absent: Duration, features: &[String]) {
        if let Some(suppressed) = self.backends.admit() {
            let (device, features) = (&self.device, features.join(", "));
            tracing::warn!(device, ?absent, features, suppressed, "the backend is back");
        }
    }

    /// The backend has signalled an error on `queue`.
    pub fn ring_error(&mut self, queue: u16) {
        let Some(suppressed) = self.rings.admit() else {
            return;
        };
        let device = &self.device;
        tracing::warn!(
            device,
            queue,
            suppressed,
            "the backend reports an error on queue {queue}: it has met something there that it \
             cannot process, as a ring that the driver has broken; its own log may say what, \
             and in gdb `monitor vq {device} {queue}` shows the ring"
        );
    }
}
