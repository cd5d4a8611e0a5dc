//! Where a ring is, how it works, and what may be wrong with it.

use vm_memory::GuestAddress;

/// What a device does wrong in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingFault {
    /// More is used than the ring has: the used index jumps, all descriptors are marked.
    IndexJumps,
    /// An id that no buffer has.
    IdTooLarge,
    /// Each chain is used twice.
    UsedTwice,
    /// The length is more than the driver's buffers have.
    LengthTooLong,
    /// Nothing is used, and the driver is notified.
    CallWithoutUse,
    /// Nothing is ever used.
    Silence,
}

/// Where a ring is, and how it works.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub size: u16,
    /// Of a split ring descriptor table, available and used ring; of a packed one the descriptor
    /// ring, and the event suppression of the driver and of the device.
    pub places: [GuestAddress; 3],
    pub is_packed: bool,
    pub event_idx: bool,
    pub indirect: bool,
}

/// Bytes of the three parts of a ring, in the order of [`Layout::places`].
pub fn lengths(size: u16, is_packed: bool) -> [u64; 3] {
    let size = u64::from(size);
    if is_packed {
        [16 * size, 4, 4]
    } else {
        [16 * size, 6 + 2 * size, 6 + 8 * size]
    }
}
