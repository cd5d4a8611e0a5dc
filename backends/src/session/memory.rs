//! The requests about guest memory.

use vhost::vhost_user::message::VhostUserSingleMemoryRegion;
use vhost_user_backend::VhostUserBackend;
use vhost_user_wire::Message;
use vhost_user_wire::payload::MemoryTable as MemoryTablePayload;
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Session};
use crate::memory::MemoryTable;

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    pub(super) fn set_mem_table(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let MemoryTablePayload(regions) = request.body()?;
        let files = request.take_files(regions.len())?;
        self.replace_memory(MemoryTable::map(&regions, files)?)
    }

    pub(super) fn add_mem_region(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        let region: VhostUserSingleMemoryRegion = request.body()?;
        let file = request.take_file()?;
        self.replace_memory(self.memory.with_region(&region, file)?)
    }

    pub(super) fn remove_mem_region(
        &mut self,
        request: &mut Message,
    ) -> Result<Answer, RequestError> {
        let region: VhostUserSingleMemoryRegion = request.body()?;
        // "the back-end MAY accept messages with one file descriptor": it is closed unused.
        request.files.clear();
        self.replace_memory(self.memory.without_region(&region)?)
    }

    /// Puts another memory table in place. Running rings pause for the change, so that nothing
    /// uses the old one when the frontend gets its answer.
    fn replace_memory(&mut self, table: MemoryTable<T::Bitmap>) -> Result<Answer, RequestError> {
        let memory = table.guest_memory()?;
        self.apply_log(&table)?;
        let rings = self.rings.iter().enumerate();
        let running = rings.filter(|(_, ring)| ring.running);
        let running: Vec<usize> = running.map(|(index, _)| index).collect();
        self.stop_all()?;
        self.memory = table;
        self.device
            .replace_memory(memory)
            .map_err(RequestError::Backend)?;
        let started = self.every_ring(Self::start_if_ready);
        self.report_without_memory(&running);
        started.map(|()| Answer::Done)
    }

    /// Says of rings that ran, and were not stopped in order, that they cannot run any more. They
    /// resume when their memory is there again.
    fn report_without_memory(&self, ran: &[usize]) {
        for ring in ran.iter().filter(|index| !self.rings[**index].running) {
            tracing::warn!(
                ring,
                "the frontend has taken away the memory of a ring that was running: it stands \
                 still until the memory is there again"
            );
            if let Some(sign) = self.device.error_sign(*ring) {
                sign.signal();
            }
        }
    }
}
