//! A descriptor chain as two runs of bytes: those that the device may read, then those that it may
//! write.
//!
//! virtio 1.3, section 2.7.4, forbids assumptions about framing: the same bytes may come in one
//! descriptor or in hundreds, direct or indirect. Devices therefore address bytes of a
//! [`Buffers`] by offset and never see a descriptor.

use thiserror::Error;
use virtio_queue::desc::split::Descriptor;
use vm_memory::bitmap::{BS, Bitmap};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
    Permissions, VolatileSlice,
};

use crate::iovec::{IoVecBuf, IoVecs};

/// A chain of so many descriptors is accepted by rings of every size: Linux makes indirect tables
/// that are longer than the ring, which virtio 1.4, section 2.7.5.3.1, forbids.
pub const ALWAYS_ACCEPTED: usize = 1024;

/// Longest chain accepted from a ring of so many entries, in descriptors.
pub fn longest(ring_size: u16) -> usize {
    ALWAYS_ACCEPTED.max(ring_size.into())
}

/// A chain that cannot be followed. The driver is at fault.
#[derive(Debug, Error)]
pub enum ChainError {
    /// No descriptor could be read at all.
    #[error("the chain's first descriptor cannot be read")]
    Empty,
    /// The chain loops, leaves its table, is not in memory, or exceeds 4 GiB.
    #[error("the chain breaks off after {0} descriptors: a loop, a bad index or unmapped memory")]
    CutShort(usize),
    /// More descriptors than the ring has, or than [`ALWAYS_ACCEPTED`].
    #[error("the chain has more than {0} descriptors")]
    TooLong(usize),
    /// virtio 1.3, section 2.7.4.2: device-readable buffers come first.
    #[error("descriptor {0} is device-readable but follows a device-writable one")]
    Order(usize),
    /// The bytes behind the greatest address would be those from 0 on.
    #[error("descriptor {0} ends behind the greatest address")]
    Wraps(usize),
}

/// Bytes of a chain that are not there.
#[derive(Debug, Error)]
pub enum BufferError {
    /// Fewer bytes than needed.
    #[error("bytes {offset}..{end} asked for of a buffer of {len}")]
    OutOfRange {
        /// First byte asked for.
        offset: u64,
        /// Past the last byte asked for.
        end: u64,
        /// Bytes there are.
        len: u64,
    },
    /// The descriptor points outside guest memory.
    #[error("a buffer is not in guest memory")]
    Memory(#[from] GuestMemoryError),
}

/// Where a piece of a buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start: GuestAddress,
    len: u64,
}

/// The bitmap of guest memory without an IOMMU.
type PhysicalBitmap<'m, M> =
    BS<'m, <<<M as GuestMemory>::PhysicalMemory as GuestMemoryBackend>::R as GuestMemoryRegion>::B>;

impl Segment {
    /// Its bytes, if they are in one piece of guest memory. Nearly all are, and this is several
    /// times faster than vm-memory's iterator over pieces.
    #[inline]
    fn whole<'m, M: GuestMemory>(
        &self,
        memory: &'m M,
    ) -> Option<VolatileSlice<'m, PhysicalBitmap<'m, M>>> {
        let memory = memory.physical_memory()?;
        memory.get_slice(self.start, self.len as usize).ok()
    }
}

/// One direction of a chain.
#[derive(Debug, Default)]
pub struct Buffers {
    segments: Vec<Segment>,
    len: u64,
}

impl Clone for Buffers {
    fn clone(&self) -> Self {
        Buffers {
            segments: self.segments.clone(),
            len: self.len,
        }
    }

    /// Keeps the room, which the derived one would not.
    fn clone_from(&mut self, other: &Self) {
        self.segments.clone_from(&other.segments);
        self.len = other.len;
    }
}

impl Buffers {
    fn clear(&mut self) {
        self.segments.clear();
        self.len = 0;
    }

    fn push(&mut self, start: GuestAddress, len: u32) {
        let len = u64::from(len);
        if len > 0 {
            self.segments.push(Segment { start, len });
            self.len += len;
        }
    }

    /// Number of bytes. A chain has less than 4 GiB in all.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies bytes from `offset` on into `bytes`.
    pub fn read<M: GuestMemory>(
        &self,
        memory: &M,
        offset: u64,
        bytes: &mut [u8],
    ) -> Result<(), BufferError> {
        let mut rest = bytes;
        for piece in self.pieces(offset, rest.len() as u64)? {
            let (head, tail) = rest.split_at_mut(piece.len as usize);
            match piece.whole(memory) {
                Some(slice) => drop(slice.copy_to(head)),
                None => memory.read_slice(head, piece.start)?,
            }
            rest = tail;
        }
        Ok(())
    }

    /// Copies `bytes` to the buffer from `offset` on.
    pub fn write<M: GuestMemory>(
        &self,
        memory: &M,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), BufferError> {
        let mut rest = bytes;
        for piece in self.pieces(offset, rest.len() as u64)? {
            let (head, tail) = rest.split_at(piece.len as usize);
            match piece.whole(memory) {
                Some(slice) => slice.copy_from(head),
                None => memory.write_slice(head, piece.start)?,
            }
            rest = tail;
        }
        Ok(())
    }

    /// Zeroes `len` bytes from `offset` on.
    pub fn zero<M: GuestMemory>(
        &self,
        memory: &M,
        offset: u64,
        len: u64,
    ) -> Result<(), BufferError> {
        const ZEROES: [u8; 4096] = [0; 4096];
        for piece in self.pieces(offset, len)? {
            let mut done = 0;
            while done < piece.len {
                let n = (piece.len - done).min(ZEROES.len() as u64);
                let at = GuestAddress(piece.start.0 + done);
                memory.write_slice(&ZEROES[..n as usize], at)?;
                done += n;
            }
        }
        Ok(())
    }

    /// `len` bytes from `offset` on, for a system call.
    pub fn iovecs<'b, 'm, M: GuestMemory>(
        &self,
        memory: &'m M,
        offset: u64,
        len: u64,
        access: Permissions,
        room: &'b mut IoVecBuf,
    ) -> Result<IoVecs<'b, 'm>, BufferError> {
        let mut iovecs = room.start();
        for piece in self.pieces(offset, len)? {
            if let Some(slice) = piece.whole(memory) {
                iovecs.push(&slice);
                continue;
            }
            for slice in memory.get_slices(piece.start, piece.len as usize, access)? {
                iovecs.push(&slice?);
            }
        }
        Ok(iovecs)
    }

    /// The kernel has written `len` bytes from `offset` on by [`iovecs`](Self::iovecs), past
    /// vm-memory: has them logged, if the frontend logs writes.
    pub fn written_by_kernel<M: GuestMemory>(
        &self,
        memory: &M,
        offset: u64,
        len: u64,
    ) -> Result<(), BufferError> {
        for piece in self.pieces(offset, len)? {
            if let Some(slice) = piece.whole(memory) {
                slice.bitmap().mark_dirty(0, slice.len());
                continue;
            }
            for slice in memory.get_slices(piece.start, piece.len as usize, Permissions::Write)? {
                let slice = slice?;
                slice.bitmap().mark_dirty(0, slice.len());
            }
        }
        Ok(())
    }

    /// The pieces that make up `len` bytes from `offset` on, all of them present.
    fn pieces(
        &self,
        offset: u64,
        len: u64,
    ) -> Result<impl Iterator<Item = Segment> + '_, BufferError> {
        let end = offset.saturating_add(len);
        if end > self.len {
            return Err(BufferError::OutOfRange {
                offset,
                end,
                len: self.len,
            });
        }
        let (mut skip, mut rest) = (offset, len);
        Ok(self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(segment.len);
            skip -= skipped;
            let len = (segment.len - skipped).min(rest);
            rest -= len;
            // No segment wraps, but what is behind one that is skipped may be no address.
            let start = GuestAddress(segment.start.0.wrapping_add(skipped));
            (len > 0).then_some(Segment { start, len })
        }))
    }
}

/// A chain's two directions. It is kept and refilled, so that a request allocates nothing.
#[derive(Debug, Default)]
pub struct Chain {
    /// From the driver.
    pub readable: Buffers,
    /// For the driver.
    pub writable: Buffers,
}

impl Chain {
    /// Walks `descriptors`, `longest` at most, and records where the bytes are. The buffers
    /// themselves are not touched, and their addresses are not checked yet.
    pub fn refill(
        &mut self,
        descriptors: impl Iterator<Item = Descriptor>,
        longest: usize,
    ) -> Result<(), ChainError> {
        self.readable.clear();
        self.writable.clear();
        let mut writable = false;
        let mut count = 0;
        let mut more = true;
        for descriptor in descriptors {
            if count == longest {
                return Err(ChainError::TooLong(longest));
            }
            let last = u64::from(descriptor.len()).saturating_sub(1);
            if descriptor.addr().0.checked_add(last).is_none() {
                return Err(ChainError::Wraps(count));
            }
            if descriptor.is_write_only() {
                writable = true;
                self.writable.push(descriptor.addr(), descriptor.len());
            } else if writable {
                return Err(ChainError::Order(count));
            } else {
                self.readable.push(descriptor.addr(), descriptor.len());
            }
            count += 1;
            more = descriptor.has_next();
        }
        // The iterator ends silently on anything it cannot follow; a chain that ended by itself
        // did so at a descriptor without NEXT.
        match (count, more) {
            (0, _) => Err(ChainError::Empty),
            (_, true) => Err(ChainError::CutShort(count)),
            (_, false) => Ok(()),
        }
    }
}

#[cfg(test)]
#[path = "chain_test.rs"]
mod tests;
