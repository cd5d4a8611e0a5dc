//! Log lines about a driver's mistakes and a device's failures: so many in some time,
//! since a guest can cause either at will.

use std::error::Error;
use std::time::Duration;

use super::rate_limit::RateLimit;

/// Of both together.
const LIMIT: RateLimit = RateLimit::new(20, Duration::from_secs(10));

/// The log of one device.
pub struct FaultLog {
    device: String,
    limit: RateLimit,
}

impl FaultLog {
    pub fn new(device: String) -> Self {
        let limit = LIMIT;
        Self { device, limit }
    }

    /// The driver has done something wrong.
    pub fn driver(&mut self, what: &str) {
        if let Some(suppressed) = self.limit.admit() {
            tracing::warn!(device = %self.device, suppressed, "the guest's driver is at fault: {what}");
        }
    }

    /// The same, and why it is wrong.
    pub fn driver_error(&mut self, what: &str, error: &(dyn Error + 'static)) {
        if let Some(suppressed) = self.limit.admit() {
            tracing::warn!(device = %self.device, suppressed, error, "the guest's driver is at fault: {what}");
        }
    }

    /// The device has failed. A guest can cause that again and again, by resetting a
    /// device that stays broken.
    pub fn device(&mut self, what: &str, error: &(dyn Error + 'static)) {
        if let Some(suppressed) = self.limit.admit() {
            tracing::error!(device = %self.device, suppressed, error, "{what}");
        }
    }
}
