//! The record of requests in flight (vhost-user document, "Inflight I/O
//! tracking").
//!
//! The backend makes the region and alone reads and writes it. The frontend
//! keeps it when the backend dies, and gives it to the next one. That one finds
//! the chains there that were taken and not used, so that none is lost or
//! repeated.

use std::fs::File;
use std::os::fd::AsFd;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::frontend::SetInflightFd;

/// A region of memory that a backend tracks requests in.
pub struct Inflight {
    file: File,
    /// Where in the file it is, and the queues that it is for.
    place: VhostUserInflight,
}

impl Inflight {
    /// From the answer to a request for a region. `None` when the backend has
    /// none to give, which it says by a size of 0.
    pub fn new(
        reply: &VhostUserInflight,
        file: Option<File>,
        queues: u16,
        queue_size: u16,
    ) -> Option<Self> {
        let place = VhostUserInflight::new(reply.mmap_size, reply.mmap_offset, queues, queue_size);
        let file = file.filter(|_| reply.mmap_size != 0)?;
        Some(Self { file, place })
    }

    /// The message that hands it over.
    pub fn message(&self) -> SetInflightFd<'_> {
        SetInflightFd {
            payload: self.place,
            file: self.file.as_fd(),
        }
    }
}
