//! Rings that outlive their backend: with a record of requests in flight the next backend resumes
//! what it had taken (vhost-user document, "Inflight I/O tracking").

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::Payload;

use super::mirror::Left;

/// What rings had in flight when their connection ended. The next connection finds it here.
#[derive(Debug, Default)]
pub struct Lost(Mutex<BTreeMap<u8, Left>>);

impl Lost {
    pub fn keep(&self, queue: u8, left: Left) {
        self.lock().insert(queue, left);
    }

    /// What a ring continues that starts now: nothing if the backend gets no record of it.
    pub fn take(&self, queue: u8, record: Option<&InFlightRecord>) -> Option<Left> {
        let left = self.lock().remove(&queue)?;
        record?.knows(queue, left.is_packed()).then_some(left)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u8, Left>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Of the queues' parts, and of the version in each: of the layout that the document suggests for
/// split and for packed queues. The version of a part that is not used yet is 0.
const ALIGNMENT: u64 = 64;
const VERSION_AT: u64 = 8;

/// The record that a frontend hands over. All else that is in it is for backends.
pub struct InFlightRecord {
    place: VhostUserInflight,
    file: File,
}

impl InFlightRecord {
    /// As SET_INFLIGHT_FD has it; a message that makes no sense has none.
    pub fn new(payload: &[u8], files: &[File]) -> Option<Self> {
        let place = VhostUserInflight::decode(payload).ok()?;
        let file = files.first()?.try_clone().ok()?;
        Some(Self { place, file })
    }

    /// Whether a backend has begun with the queue's part. Frontends undo that when the driver
    /// takes the queue away.
    fn knows(&self, queue: u8, is_packed: bool) -> bool {
        // The header, and as much for each descriptor.
        let unit = if is_packed { 32 } else { 16 };
        let part = unit * (1 + u64::from(self.place.queue_size));
        let begin = part.next_multiple_of(ALIGNMENT) * u64::from(queue);
        let at = self.place.mmap_offset.checked_add(begin + VERSION_AT);
        let mut version = [0; 2];
        u16::from(queue) < self.place.num_queues
            && at.is_some_and(|at| self.file.read_exact_at(&mut version, at).is_ok())
            && version != [0; 2]
    }
}
