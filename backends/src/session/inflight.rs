//! The requests about the record of requests in flight.

use std::sync::Arc;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_backend::VhostUserBackend;
use vhost_user_wire::{Message, Payload};
use vm_memory::mmap::NewBitmap;

use super::error::RequestError;
use super::{Answer, Session};
use crate::inflight::{self, Region, Shape};

impl<T> Session<'_, T>
where
    T: VhostUserBackend,
    T::Bitmap: NewBitmap,
{
    /// GET_INFLIGHT_FD: a new record, for rings of the format that was agreed on. It
    /// is the frontend's from here on; it comes back with SET_INFLIGHT_FD.
    pub(super) fn get_inflight_fd(&self, request: &Message) -> Result<Answer, RequestError> {
        self.check_tracking()?;
        let asked: VhostUserInflight = request.body()?;
        let mut shape = Shape::new(
            asked.num_queues,
            asked.queue_size,
            self.rings.len(),
            self.is_packed(),
        )?;
        if self.has_state() {
            shape = shape.with_state();
        }
        let (place, file) = inflight::create(shape)?;
        Ok(Answer::File(place.to_bytes(), file))
    }

    /// SET_INFLIGHT_FD: the record of this backend or of the one before it. Rings that run
    /// already are restarted with it.
    pub(super) fn set_inflight_fd(
        &mut self,
        request: &mut Message,
    ) -> Result<Answer, RequestError> {
        self.check_tracking()?;
        let place: VhostUserInflight = request.body()?;
        let file = request.take_file()?;
        let region = Region::map(&place, file, self.rings.len(), self.is_packed())?;
        let region = Arc::new(region);
        self.stop_all()?;
        self.resume_state(&region)?;
        self.inflight = Some(region);
        self.every_ring(Self::start_if_ready)?;
        Ok(Answer::Done)
    }

    fn check_tracking(&self) -> Result<(), RequestError> {
        if self.device.tracks() {
            Ok(())
        } else {
            Err(RequestError::Unsupported)
        }
    }
}
