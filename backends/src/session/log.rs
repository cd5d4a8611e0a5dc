//! The requests about the log of written pages.
//!
//! The log is written while there is one and VHOST_F_LOG_ALL is among the features. Used rings
//! are guest memory like any other here; one with VHOST_VRING_F_LOG is logged at its own address
//! too.

use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostUserLog, VhostUserProtocolFeatures as Protocol, VhostUserVirtioFeatures,
};
use vhost_user_backend::VhostUserBackend;
use vhost_user_wire::Message;
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Session};
use crate::memory::MemoryTable;
use crate::page_log::{self, Log};

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    /// Whether the device works in memory that the kit can log writes to.
    pub(super) fn can_log() -> bool {
        page_log::is_loggable::<T::Bitmap>()
    }

    /// SET_LOG_BASE: another log. The answer says that nothing is written into the one before
    /// it any more.
    pub(super) fn set_log_base(&mut self, request: &mut Message) -> Result<Answer, RequestError> {
        if !self.protocol.contains(Protocol::LOG_SHMFD) {
            return Err(RequestError::Unsupported);
        }
        let place: VhostUserLog = request.body()?;
        let log = Log::map(&place, request.take_file()?)?;
        let log = Arc::new(log);
        self.attach(&self.memory, self.wanted(Some(&log)))?;
        self.log = Some(log);
        tracing::debug!(
            bytes = place.mmap_size,
            "logging the pages that are written"
        );
        // The document does not say what the answer carries. The vhost crate's frontend takes only
        // the payload that it sent, QEMU any.
        Ok(Answer::payload(&place))
    }

    /// Has writes to `memory` logged, or not, as the frontend wants it now.
    pub(super) fn apply_log(&self, memory: &MemoryTable<T::Bitmap>) -> Result<(), RequestError> {
        self.attach(memory, self.wanted(self.log.as_ref()))
    }

    fn attach(
        &self,
        memory: &MemoryTable<T::Bitmap>,
        log: Option<&Arc<Log>>,
    ) -> Result<(), RequestError> {
        let packed = self.is_packed();
        let rings = self.rings.iter();
        let rings: Vec<_> = rings
            .filter_map(|ring| ring.setup.used_log(memory, packed))
            .collect();
        for ring in &rings {
            log.map_or(Ok(()), |log| {
                log.check(ring.log.saturating_add(ring.len - 1))
            })?;
        }
        Ok(page_log::attach(&memory.guest_memory()?, log, &rings)?)
    }

    fn wanted<'a>(&self, log: Option<&'a Arc<Log>>) -> Option<&'a Arc<Log>> {
        log.filter(|_| self.features & VhostUserVirtioFeatures::LOG_ALL.bits() != 0)
    }
}
