//! The requests about guest memory.

use vhost::vhost_user::message::{
    VhostUserMemory, VhostUserMemoryRegion, VhostUserSingleMemoryRegion,
};
use vhost_user_backend::VhostUserBackend;
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Session};
use crate::memory::{MemoryError, MemoryTable};
use crate::wire::{MAX_PAYLOAD, Request, read_body};

/// Largest number of regions in SET_MEM_TABLE: as many as fit the largest payload.
const MAX_TABLE_REGIONS: usize =
    (MAX_PAYLOAD - size_of::<VhostUserMemory>()) / size_of::<VhostUserMemoryRegion>();

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    pub(super) fn set_mem_table(&mut self, request: &mut Request) -> Result<Answer, RequestError> {
        let header: VhostUserMemory = request.body()?;
        let count = header.num_regions as usize;
        if count > MAX_TABLE_REGIONS {
            return Err(MemoryError::TooMany(count).into());
        }
        let files = request.take_files(count)?;
        let bytes = &request.payload[size_of::<VhostUserMemory>()..];
        let size = size_of::<VhostUserMemoryRegion>();
        let regions = (0..count)
            .map(|i| read_body(bytes.get(i * size..).unwrap_or_default()))
            .collect::<Result<Vec<VhostUserMemoryRegion>, _>>()?;
        self.replace_memory(MemoryTable::map(&regions, files)?)
    }

    pub(super) fn add_mem_region(&mut self, request: &mut Request) -> Result<Answer, RequestError> {
        let region: VhostUserSingleMemoryRegion = request.body()?;
        let file = request.take_file()?;
        self.replace_memory(self.memory.with_region(&region, file)?)
    }

    pub(super) fn remove_mem_region(
        &mut self,
        request: &mut Request,
    ) -> Result<Answer, RequestError> {
        let region: VhostUserSingleMemoryRegion = request.body()?;
        // "the back-end MAY accept messages with one file descriptor": it is closed unused.
        request.files.clear();
        self.replace_memory(self.memory.without_region(&region)?)
    }

    /// Puts another memory table in place. Running rings pause over the change, so that nothing
    /// is at work in the old one when the frontend gets its answer.
    fn replace_memory(&mut self, table: MemoryTable<T::Bitmap>) -> Result<Answer, RequestError> {
        let memory = table.guest_memory()?;
        self.apply_log(&memory)?;
        self.every_ring(Self::stop)?;
        self.memory = table;
        self.device
            .replace_memory(memory)
            .map_err(RequestError::Backend)?;
        self.every_ring(Self::start_if_ready)?;
        Ok(Answer::Done)
    }
}
