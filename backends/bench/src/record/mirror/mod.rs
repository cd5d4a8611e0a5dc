//! Rings in two copies: the driver's own, and one that the device has.
//!
//! The proxy passes on what the driver makes available and what the device uses, from one copy to
//! the other. So nothing is used before it was seen, whoever polls or suppresses notifications,
//! and what is in a buffer when it is seen is what the peer put there. Descriptor numbers,
//! indices, positions and bases are the same in both copies: messages that name them pass as they
//! are.

mod packed;
mod place;
mod queue;
mod split;

pub use place::DevicePlaces;
pub use queue::{Left, Queue, Ring, Witness};
