//! What the last backend offers, and whether it is enough for what the driver relies on.

use crate::vhost_user::error::Problem;
use crate::vhost_user::session::negotiate::Agreement;
use crate::virtio::{DeviceType, features};

/// The offer of the backend that is there, or was last.
pub struct Offer {
    device_type: DeviceType,
    features: u64,
    queues: u16,
    /// How many memory regions it takes, if it says so.
    memory_slots: Option<u64>,
}

impl Offer {
    pub fn new(device_type: DeviceType, agreement: &Agreement) -> Self {
        Self {
            device_type,
            features: agreement.features,
            queues: agreement.queues,
            memory_slots: agreement.memory_slots,
        }
    }

    /// The features of the device.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// How many queues there are.
    pub fn queues(&self) -> u16 {
        self.queues
    }

    /// The features that the driver took, as long as the backend has them.
    pub fn check_features(&self, taken: u64) -> Result<(), Problem> {
        let lost = taken & !self.features;
        if lost == 0 {
            return Ok(());
        }
        let names = features::names(self.device_type, lost);
        Err(Problem::FeaturesLost(names))
    }

    /// The memory regions, as long as the backend takes so many.
    pub fn check_memory_slots(&self, needed: usize) -> Result<(), Problem> {
        match self.memory_slots {
            Some(found) if found < needed as u64 => {
                Err(Problem::TooFewMemorySlots { needed, found })
            }
            _ => Ok(()),
        }
    }

    /// The driver's queue, as long as the backend has it.
    pub fn check_queue(&self, queue: u16) -> Result<(), Problem> {
        let found = self.queues;
        if queue < found {
            return Ok(());
        }
        Err(Problem::QueueLost { queue, found })
    }
}
