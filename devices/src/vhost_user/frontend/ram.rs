//! Guest RAM as backends get it: where they find the rings, and where they log what they
//! write.

use std::ops::Range;
use std::sync::Arc;

use vhost::vhost_user::message::{VhostUserVringAddr, VhostUserVringAddrFlags};
use vm_memory::GuestAddress;

use crate::vhost_user::error::Problem;
use crate::vhost_user::session::memory::MemoryTable;
use crate::vhost_user::session::page_log::PageLog;
use crate::virtio::{Format, GuestMemory, QueueConfig};

/// Guest RAM, shared with backends.
pub struct Ram {
    table: Arc<MemoryTable>,
    /// Where the backend logs the pages that it writes, if somebody wants to know.
    log: Option<Arc<PageLog>>,
}

impl Ram {
    /// Fails when a part of it cannot be shared with another process.
    pub fn new(memory: Arc<GuestMemory>) -> Result<Self, Problem> {
        Ok(Self {
            table: Arc::new(MemoryTable::new(memory)?),
            log: None,
        })
    }

    pub fn guest(&self) -> &GuestMemory {
        self.table.guest()
    }

    pub fn table(&self) -> &Arc<MemoryTable> {
        &self.table
    }

    pub fn log(&self) -> Option<&Arc<PageLog>> {
        self.log.as_ref()
    }

    /// Makes a log in which no page is written yet.
    pub fn start_log(&mut self) -> Result<(), Problem> {
        let log = PageLog::new(self.guest()).map_err(Problem::PageLog)?;
        self.log = Some(Arc::new(log));
        Ok(())
    }

    pub fn stop_log(&mut self) {
        self.log = None;
    }

    /// The pages that were written since this was asked last, if they are logged.
    pub fn written_pages(&self) -> Option<Vec<Range<u64>>> {
        self.log.as_ref().map(|log| log.take())
    }

    /// The addresses of queue `index`, as its backend gets them.
    pub fn ring_addresses(
        &self,
        index: u16,
        queue: &QueueConfig,
    ) -> Result<VhostUserVringAddr, Problem> {
        let flags = match self.log {
            Some(_) => VhostUserVringAddrFlags::VHOST_VRING_F_LOG,
            None => VhostUserVringAddrFlags::empty(),
        };
        // The part of the ring that the device writes.
        let written = match queue.format {
            Format::Split => queue.used,
            Format::Packed => queue.descriptors,
        };
        Ok(VhostUserVringAddr::new(
            index.into(),
            flags,
            self.ring_address(index, queue.descriptors)?,
            self.ring_address(index, queue.used)?,
            self.ring_address(index, queue.available)?,
            written.0,
        ))
    }

    fn ring_address(&self, queue: u16, address: GuestAddress) -> Result<u64, Problem> {
        let user = self.table.user_address(address);
        user.map(|user| user.raw()).ok_or(Problem::OutsideMemory {
            queue,
            address: address.0,
        })
    }
}
