//! The record of requests in flight (vhost-user document, "Inflight I/O
//! tracking").
//!
//! The backend makes the region and alone reads and writes it. The frontend
//! keeps it when the backend dies, and gives it to the next one. That one finds
//! the chains there that were taken and not used, so that none is lost or
//! repeated.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::frontend::SetInflightFd;

use crate::virtio::Format;

/// The layout that the document suggests: its version, and where each queue's part begins.
const VERSION: u16 = 1;
const ALIGNMENT: u64 = 64;

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

    /// How many requests of queue `index` the backend has taken and not used. `None` where the
    /// region cannot be read or has no layout that the document suggests.
    pub fn taken(&self, index: u16, format: Format) -> Option<u32> {
        let (queues, most) = (self.place.num_queues, self.place.queue_size);
        // `QueueRegionSplit` and `DescStateSplit`, `QueueRegionPacked` and `DescStatePacked`.
        let (header, entry): (u64, u64) = match format {
            Format::Split => (16, 16),
            Format::Packed => (32, 32),
        };
        let part = (header + entry * u64::from(most)).next_multiple_of(ALIGNMENT);
        let begin = part * u64::from(index);
        let is_inside = index < queues && begin + part <= self.place.mmap_size;
        let at = self
            .place
            .mmap_offset
            .checked_add(begin)
            .filter(|_| is_inside)?;
        let mut bytes = vec![0; part as usize];
        self.file.read_exact_at(&mut bytes, at).ok()?;
        let word = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        // Behind the features: the version, the number of entries.
        let (version, count) = (word(8)?, word(10)?);
        if version != VERSION || count > most {
            return None;
        }
        let entries = bytes.get(header as usize..)?.chunks_exact(entry as usize);
        let entries = entries.take(count.into());
        Some(entries.filter(|entry| entry.first() == Some(&1)).count() as u32)
    }
}

#[cfg(test)]
#[path = "inflight_test.rs"]
mod tests;
