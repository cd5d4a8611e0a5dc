//! The record of requests in flight (vhost-user document, "Inflight I/O
//! tracking").
//!
//! The backend makes the region and writes what it does there. The frontend
//! keeps it when the backend dies, and gives it to the next one. That one finds
//! the chains there that were taken and not used, so that none is lost or
//! repeated.
//!
//! A queue that the driver takes away has none. Its part of the region would
//! name chains of a ring that is no more, to a backend that only knows the next
//! one. The backend that has stopped the queue need not be the one that starts
//! it again, so the frontend empties the part.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use vhost::vhost_user::message::VhostUserInflight;
use vhost_user_wire::frontend::SetInflightFd;

use crate::virtio::Format;

/// The layout that the document suggests: its version, and where each queue's part begins.
const VERSION: u16 = 1;
const ALIGNMENT: u64 = 64;

/// Where fields of `QueueRegionSplit` and of `QueueRegionPacked` are that both have.
const VERSION_AT: usize = 8;
const COUNT_AT: usize = 10;
/// Behind these, how far the queue has come.
const PROGRESS_AT: usize = 12;
/// Of `QueueRegionPacked` alone: both wrap counters of the used position, new and old.
const WRAPS_AT: usize = 20;
/// Of `DescStatePacked` alone: the next entry that is free.
const NEXT_AT: usize = 2;

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
        let part = self.part(index, format)?;
        let bytes = self.read(&part).ok()?;
        let entries = bytes.get(part.header..)?.chunks_exact(part.entry);
        let entries = entries.take(self.count(&bytes)?.into());
        Some(entries.filter(|entry| entry.first() == Some(&1)).count() as u32)
    }

    /// Makes the part of queue `index`, which no backend works on, that of a queue that none has
    /// begun yet. A region that has no layout that the document suggests is left as it is.
    ///
    /// # Errors
    /// The region cannot be read or written.
    pub fn empty(&self, index: u16, format: Format) -> io::Result<()> {
        let Some(part) = self.part(index, format) else {
            return Ok(());
        };
        let mut bytes = self.read(&part)?;
        if self.count(&bytes).is_none() {
            return Ok(());
        }
        let (header, entries) = bytes.split_at_mut(part.header);
        // What is in the version's place then, the document calls a region that is not used yet.
        header[VERSION_AT..COUNT_AT].fill(0);
        header[PROGRESS_AT..].fill(0);
        entries.fill(0);
        if format == Format::Packed {
            // As DPDK's backends begin: they only do so when they make a region.
            header[WRAPS_AT..WRAPS_AT + 2].fill(1);
            for (next, entry) in (1u16..).zip(entries.chunks_exact_mut(part.entry)) {
                entry[NEXT_AT..NEXT_AT + 2].copy_from_slice(&next.to_ne_bytes());
            }
        }
        self.file.write_all_at(&bytes, part.at)
    }

    /// `None` where the region has no room for it.
    fn part(&self, index: u16, format: Format) -> Option<Part> {
        // `QueueRegionSplit` and `DescStateSplit`, `QueueRegionPacked` and `DescStatePacked`.
        let (header, entry): (usize, usize) = match format {
            Format::Split => (16, 16),
            Format::Packed => (32, 32),
        };
        let len = header + entry * usize::from(self.place.queue_size);
        let stride = (len as u64).next_multiple_of(ALIGNMENT);
        let begin = stride * u64::from(index);
        let is_inside = index < self.place.num_queues && begin + stride <= self.place.mmap_size;
        let at = self.place.mmap_offset.checked_add(begin);
        let at = at.filter(|_| is_inside)?;
        Some(Part {
            at,
            len,
            header,
            entry,
        })
    }

    fn read(&self, part: &Part) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; part.len];
        self.file.read_exact_at(&mut bytes, part.at)?;
        Ok(bytes)
    }

    /// How many entries a queue's part has. `None` where its layout is not known, or nobody has
    /// used it.
    fn count(&self, bytes: &[u8]) -> Option<u16> {
        let word = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let (version, count) = (word(VERSION_AT)?, word(COUNT_AT)?);
        (version == VERSION && count <= self.place.queue_size).then_some(count)
    }
}

/// A queue's part of a region.
struct Part {
    /// Where it is in the file.
    at: u64,
    /// Bytes of the header and the entries behind it.
    len: usize,
    header: usize,
    /// Bytes of one.
    entry: usize,
}

#[cfg(test)]
#[path = "inflight_test.rs"]
mod tests;
