//! The block device for the kit: what it offers, and a chain for the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use super::request::Disk;
use super::{MAX_QUEUE_SIZE, config};
use crate::page_log::GuestRam;
use crate::ratelimit::RateLimit;
use crate::request::{Outcome, Request};
use crate::virtio::VirtioDevice;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// A disk behind request queues.
pub struct BlkDevice {
    disk: Disk,
    queues: u16,
    features: AtomicU64,
}

impl BlkDevice {
    /// A disk with `queues` request queues, 1 to 64.
    pub fn new(disk: Disk, queues: u16) -> Self {
        BlkDevice {
            disk,
            queues,
            features: AtomicU64::new(0),
        }
    }
}

impl VirtioDevice for BlkDevice {
    fn queues(&self) -> u16 {
        self.queues
    }

    fn max_queue_size(&self) -> u16 {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        config::features(self.disk.image(), self.queues)
    }

    fn negotiated(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
    }

    fn reset(&self) {
        self.features.store(0, Ordering::Relaxed);
    }

    fn config(&self) -> Vec<u8> {
        config::space(self.disk.image(), self.queues).to_vec()
    }

    /// A write that is repeated writes the same; a driver expects no order of requests in flight.
    fn resumable(&self) -> bool {
        true
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let features = self.features.load(Ordering::Relaxed);
        let result = self
            .disk
            .process(memory, &request.chain, features, &mut request.room);
        match result {
            Ok(completed) => {
                if let Some(error) = &completed.error {
                    let error: &dyn std::error::Error = error;
                    warn_limited!(LOG, error, "a request failed");
                }
                Outcome::Done(completed.used)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a request of the driver");
                Outcome::Done(0)
            }
        }
    }
}
