//! The look at the other side's word that neither side of a ring may do without.
//!
//! Driver and device tell each other when they want to be woken. A side that is about to sleep
//! writes that wish and looks once more whether there is anything; a side that has published
//! something looks whether it is wished for. Each writes one word and then reads the other's.
//! Without a full fence in between, both reads may come before both writes: one side sleeps, and
//! nobody wakes it (virtio 1.4, sections 2.7.7, 2.7.10 and 2.8.10; Linux
//! `Documentation/memory-barriers.txt`, "store buffering"). The models of both kinds of ring
//! ([`crate::split`], [`crate::packed`]) try all orders that a processor may choose.

/// What orders accesses to the memory that both sides share.
pub trait Fence {
    /// Has all accesses before it take effect before all that follow.
    fn full();
}

/// Reads what the other side has written, after all that this side has written.
pub fn look_again<F: Fence, T>(read: impl FnOnce() -> T) -> T {
    F::full();
    read()
}
