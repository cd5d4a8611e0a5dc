//! Handing guest memory to a backend, and taking it back.

use vhost_user_wire::frontend::RemoveMemoryRegion;

use super::channel::Channel;
use super::channel_error::ChannelError;
use super::memory::MemoryTable;
use crate::deadline::Deadline;

/// What a backend has of guest memory.
pub struct Sharing {
    /// Whether it takes the regions one by one (VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS);
    /// otherwise it gets them all at once.
    by_region: bool,
    /// The regions that were added one by one, as they are removed again.
    added: Vec<RemoveMemoryRegion>,
}

impl Sharing {
    pub fn new(by_region: bool) -> Self {
        Self {
            by_region,
            added: Vec::new(),
        }
    }

    /// Hands over all of `memory`. The backend takes so many regions: the caller has looked.
    pub fn share(
        &mut self,
        memory: &MemoryTable,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        if !self.by_region {
            return channel.tell(&memory.message(), deadline);
        }
        self.unshare(channel, deadline)?;
        for add in memory.regions() {
            channel.tell(&add, deadline)?;
            self.added.push(RemoveMemoryRegion(add.payload));
        }
        Ok(())
    }

    /// Removes the regions that were added one by one. A backend that has
    /// forgotten them already may say so.
    pub fn unshare(
        &mut self,
        channel: &mut Channel,
        deadline: &Deadline,
    ) -> Result<(), ChannelError> {
        while let Some(remove) = self.added.pop() {
            match channel.tell(&remove, deadline) {
                Err(error) if !error.is_refusal() => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
