//! The driver's status as a backend has it (vhost-user document, "VHOST_USER_SET_STATUS").

use vhost_user_wire::frontend::{GetStatus, SetStatus};

use super::channel::Channel;
use super::channel_error::ChannelError;
use crate::deadline::Deadline;
use crate::virtio::status::Status;

/// The status that the backend was told last.
pub struct DriverStatus {
    /// Whether it wants to know (VHOST_USER_PROTOCOL_F_STATUS).
    is_wanted: bool,
    bits: u32,
}

impl DriverStatus {
    pub fn new(is_wanted: bool) -> Self {
        Self { is_wanted, bits: 0 }
    }

    /// The next driver begins, without a reset of the backend.
    pub fn forget(&mut self) {
        self.bits = 0;
    }

    /// Adds to it, and makes sure that the device accepts that: it refuses features by
    /// leaving FEATURES_OK out (virtio 1.3, section 3.1.1).
    pub fn add(
        &mut self,
        bits: &[Status],
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        let added = bits.iter().fold(0, |bits, bit| bits | bit.bits());
        if !self.is_wanted || self.bits & added == added {
            return Ok(());
        }
        self.bits |= added;
        channel.tell(&SetStatus(self.bits.into()), deadline)?;
        let found = channel.ask(&GetStatus, deadline)?;
        let missing = bits.iter().find(|bit| found & u64::from(bit.bits()) == 0);
        missing.map_or(Ok(()), |missing| {
            let missing = *missing;
            Err(ChannelError::Status { missing, found })
        })
    }

    /// The driver has reset the device.
    pub fn clear(
        &mut self,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        if !self.is_wanted {
            return Ok(());
        }
        self.forget();
        channel.tell(&SetStatus(0), deadline)
    }

    /// Whether the device says that it needs a reset (virtio 1.3, section 2.1.2). Before
    /// the driver is ready the backend has no status to say so in.
    pub fn needs_reset(
        &self,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<bool, ChannelError> {
        if self.bits & Status::DRIVER_OK.bits() == 0 {
            return Ok(false);
        }
        let status = channel.ask(&GetStatus, deadline)?;
        Ok(status & u64::from(Status::NEEDS_RESET.bits()) != 0)
    }
}
