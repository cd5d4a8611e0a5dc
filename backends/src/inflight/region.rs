//! The record as a piece of shared memory: its size, its file, and single loads and stores.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use host_io::files::sealed_memfd;
use thiserror::Error;
use vhost::vhost_user::message::VhostUserInflight;
use vm_memory::{AtomicInteger, FileOffset, MmapRegion, VolatileMemory};

use super::layout::{
    ALIGNMENT, ENTRY_INFLIGHT, HEADER_VERSION, PACKED, Queue, SPLIT, STATE, VERSION,
};

/// virtio 1.3, section 2.7.
const MAX_QUEUE_SIZE: u16 = 32768;

/// A record that cannot be used. The frontend is at fault, unless the text names the host.
#[derive(Debug, Error)]
pub enum InflightError {
    /// No queue, more than there are, or of an impossible size.
    #[error(
        "a record for {queues} queues of {size} entries asked for; this device has {most} queues, \
         of at most {MAX_QUEUE_SIZE} entries"
    )]
    Shape {
        /// Queues asked for.
        queues: u16,
        /// Entries of each.
        size: u16,
        /// The device's queues.
        most: usize,
    },
    /// Less memory than the record needs.
    #[error("{got} bytes at offset {offset} of a file of {len} bytes; the record takes {want}")]
    Small {
        /// Announced size in bytes.
        got: u64,
        /// Announced offset in bytes.
        offset: u64,
        /// The file's size in bytes.
        len: u64,
        /// The size needed in bytes.
        want: u64,
    },
    /// The host has no file for it, or the one it was given in cannot be inspected.
    #[error("the host cannot provide or inspect the file of the record")]
    File(#[source] io::Error),
    /// `mmap` failed.
    #[error("the record cannot be mapped")]
    Map(#[source] vm_memory::mmap::MmapRegionError),
    /// The ring has no part in the record, or too small a one.
    #[error("a ring of {size} entries has no room in the record: it has {queues} queues of {room}")]
    Room {
        /// Entries of the ring.
        size: u16,
        /// Queues in the record.
        queues: u16,
        /// Entries of each.
        room: u16,
    },
    /// Written by something that this backend does not know.
    #[error(
        "the record has version {version} for {entries} entries; known is {VERSION}, for {room}"
    )]
    Unknown {
        /// Version found.
        version: u16,
        /// Entries found.
        entries: u16,
        /// Entries as announced.
        room: u16,
    },
    /// The record and the used ring cannot be of the same ring.
    #[error(
        "the record ends at used index {recorded} and the used ring at {used}: not the same ring"
    )]
    Foreign {
        /// Used index in the record.
        recorded: u16,
        /// Used index in the ring.
        used: u16,
    },
    /// Its lists lead nowhere.
    #[error("the record contradicts itself")]
    Corrupt,
    /// An access outside the mapping; a bug, as all positions are checked.
    #[error("the record cannot be accessed")]
    Access(#[from] vm_memory::VolatileMemoryError),
}

/// How many queues of which size a record has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub(super) queues: u16,
    pub(super) size: u16,
    /// Whether the queues are packed.
    pub(super) packed: bool,
    /// Whether there is room for the device's own state.
    pub(super) state: bool,
}

impl Shape {
    /// `queues` queues of `size` entries each, for a device that has `most` queues.
    pub fn new(queues: u16, size: u16, most: usize, packed: bool) -> Result<Self, InflightError> {
        let fits =
            (1..=most).contains(&usize::from(queues)) && (1..=MAX_QUEUE_SIZE).contains(&size);
        fits.then_some(Shape {
            queues,
            size,
            packed,
            state: false,
        })
        .ok_or(InflightError::Shape { queues, size, most })
    }

    /// The same with room for the device's own state.
    pub fn with_state(self) -> Self {
        Shape {
            state: true,
            ..self
        }
    }

    fn queue(self) -> Queue {
        if self.packed { PACKED } else { SPLIT }
    }

    /// Bytes from one queue's region to the next.
    pub(super) fn stride(self) -> usize {
        let queue = self.queue();
        (queue.header + queue.entry * usize::from(self.size)).next_multiple_of(ALIGNMENT)
    }

    /// Bytes of the whole record.
    pub(super) fn bytes(self) -> usize {
        let state = if self.state { STATE } else { 0 };
        self.stride() * usize::from(self.queues) + state
    }
}

/// Makes an empty record for the frontend to keep: the payload that describes it, and its file.
pub fn create(shape: Shape) -> Result<(VhostUserInflight, File), InflightError> {
    let bytes = shape.bytes() as u64;
    let file = sealed_memfd("vhost-user-inflight", bytes).map_err(InflightError::File)?;
    let place = VhostUserInflight::new(bytes, 0, shape.queues, shape.size);
    Ok((place, file))
}

/// A record as the frontend has given it to this backend.
#[derive(Debug)]
pub struct Region {
    pub(super) map: MmapRegion,
    pub(super) shape: Shape,
}

impl Region {
    /// Maps the record that `place` describes, for a device of `most` queues.
    pub fn map(
        place: &VhostUserInflight,
        file: File,
        most: usize,
        packed: bool,
    ) -> Result<Self, InflightError> {
        let mut shape = Shape::new(place.num_queues, place.queue_size, most, packed)?;
        if place.mmap_size >= shape.with_state().bytes() as u64 {
            shape = shape.with_state();
        }
        let metadata = file.metadata().map_err(InflightError::File)?;
        let (want, offset) = (shape.bytes() as u64, place.mmap_offset);
        // Beyond the end of the file an access would be a SIGBUS.
        let fits = offset
            .checked_add(want)
            .is_some_and(|end| end <= metadata.len() || !metadata.is_file());
        if place.mmap_size < want || !fits {
            return Err(InflightError::Small {
                got: place.mmap_size,
                offset,
                len: metadata.len(),
                want,
            });
        }
        let map = MmapRegion::from_file(FileOffset::new(file, offset), shape.bytes())
            .map_err(InflightError::Map)?;
        Ok(Region { map, shape })
    }

    /// Makes the part of queue `index` one of a ring that has not run, unless it has requests in
    /// flight. For a ring that was stopped in order and begins again somewhere else.
    pub fn forget_if_idle(&self, index: usize) -> Result<(), InflightError> {
        if index >= usize::from(self.shape.queues) {
            return Ok(());
        }
        let queue = self.shape.queue();
        let start = self.shape.stride() * index;
        for entry in 0..usize::from(self.shape.size) {
            let at = start + queue.header + queue.entry * entry + ENTRY_INFLIGHT;
            if self.load::<AtomicU8>(at)? != 0 {
                return Ok(());
            }
        }
        self.store::<AtomicU16>(start + HEADER_VERSION, 0)
    }

    /// Makes it another record.
    #[cfg(test)]
    pub fn write(&self, bytes: &[u8]) {
        self.map.as_volatile_slice().copy_from(bytes);
    }

    pub(super) fn load<A: AtomicInteger>(&self, at: usize) -> Result<A::V, InflightError> {
        Ok(self.map.get_atomic_ref::<A>(at)?.load(Ordering::Acquire))
    }

    pub(super) fn store<A: AtomicInteger>(
        &self,
        at: usize,
        value: A::V,
    ) -> Result<(), InflightError> {
        self.map
            .get_atomic_ref::<A>(at)?
            .store(value, Ordering::Release);
        Ok(())
    }
}
