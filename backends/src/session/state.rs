//! The requests about the device's own state, and its return from the record.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vhost::vhost_user::message::{
    VhostTransferStateDirection as Direction, VhostTransferStatePhase as Phase,
    VhostUserProtocolFeatures as Protocol, VhostUserTransferDeviceState,
};
use vhost_user_backend::VhostUserBackend;
use vhost_user_wire::payload::NO_FILE;
use vhost_user_wire::{Message, Payload};
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Session};
use crate::inflight::Region;

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    /// Whether the device has a state of its own.
    pub(super) fn has_state(&self) -> bool {
        let offered = self.device.backend.protocol_features();
        offered.contains(Protocol::DEVICE_STATE)
    }

    /// SET_DEVICE_STATE_FD: saves or loads through this descriptor, or another.
    pub(super) fn set_device_state_fd(
        &mut self,
        request: &mut Message,
    ) -> Result<Answer, RequestError> {
        let transfer: VhostUserTransferDeviceState = request.body()?;
        let known = Direction::try_from(transfer.direction)
            .and_then(|direction| Ok((direction, Phase::try_from(transfer.phase)?)));
        let (Ok((direction, phase)), true) = (known, self.has_state()) else {
            return Err(RequestError::Unsupported);
        };
        if let Some(index) = self.rings.iter().position(|ring| ring.running) {
            return Err(RequestError::Running(index));
        }
        let file = request.take_file()?;
        let backend = &self.device.backend;
        let other = backend.set_device_state_fd(direction, phase, file);
        match other.map_err(RequestError::Backend)? {
            Some(file) => Ok(Answer::File(0u64.to_bytes(), file)),
            None => Ok(Answer::payload(&NO_FILE)),
        }
    }

    /// CHECK_DEVICE_STATE: whether all of it has been saved or loaded.
    pub(super) fn check_device_state(&self) -> Result<Answer, RequestError> {
        let checked = self.device.backend.check_device_state();
        checked.map_err(RequestError::Backend)?;
        Ok(Answer::payload(&0u64))
    }

    /// Gives the device the state that its predecessor has left in the record, and has it
    /// keep its own there.
    pub(super) fn resume_state(&self, region: &Arc<Region>) -> Result<(), RequestError> {
        if !self.has_state() {
            return Ok(());
        }
        if let Some(state) = region.state()? {
            self.load(&state).map_err(RequestError::Backend)?;
            tracing::debug!(bytes = state.len(), "took over the state of a predecessor");
        }
        Ok(self.device.state_record().begin(Arc::clone(region))?)
    }

    /// Loads a state as a frontend would. It is shorter than what a pipe holds.
    fn load(&self, state: &[u8]) -> io::Result<()> {
        let (reader, mut writer) = io::pipe()?;
        let reader = OwnedFd::from(reader).into();
        let backend = &self.device.backend;
        match backend.set_device_state_fd(Direction::LOAD, Phase::STOPPED, reader)? {
            Some(mut other) => other.write_all(state)?,
            None => writer.write_all(state)?,
        }
        // Its end is the state's.
        drop(writer);
        backend.check_device_state()
    }
}
