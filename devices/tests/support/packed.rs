//! A packed queue (virtio 1.4, section 2.8) with one request at a time.

use devices::virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use super::{Buffer, Ring};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

pub struct Packed {
    base: u64,
    /// Descriptors since the queue began.
    added: u64,
    /// The same, of the last request's first.
    last: u64,
}

impl Packed {
    /// In the place of a split queue.
    pub fn new(ring: &Ring) -> Self {
        let base = ring.base;
        let (added, last) = (0, 0);
        Self { base, added, last }
    }

    /// Where a descriptor is, and the wrap counter there.
    fn place(&self, number: u64) -> (u64, bool) {
        let size = u64::from(Ring::SIZE);
        let wrap = (number / size).is_multiple_of(2);
        (self.base + 16 * (number % size), wrap)
    }

    pub fn add(&mut self, memory: &GuestMemory, buffers: &[Buffer]) {
        self.last = self.added;
        self.added += buffers.len() as u64;
        // The first one makes the request available, and so comes last.
        for (number, buffer) in (self.last..).zip(buffers).collect::<Vec<_>>().iter().rev() {
            let (at, wrap) = self.place(*number);
            let more = u16::from(number + 1 < self.added);
            let turn = if wrap { AVAIL } else { USED };
            let flags = more | u16::from(buffer.writable) << 1 | turn;
            let write =
                |value: &[u8], at: u64| memory.write_slice(value, GuestAddress(at)).unwrap();
            write(&buffer.address.to_le_bytes(), at);
            write(&buffer.len.to_le_bytes(), at + 8);
            write(&7u16.to_le_bytes(), at + 12);
            write(&flags.to_le_bytes(), at + 14);
        }
    }

    /// Whether the device has used the last request.
    pub fn is_used(&self, memory: &GuestMemory) -> bool {
        let (at, wrap) = self.place(self.last);
        let flags: u16 = memory.read_obj(GuestAddress(at + 14)).unwrap();
        let flags = u16::from_le(flags);
        (flags & AVAIL != 0, flags & USED != 0) == (wrap, wrap)
    }
}
