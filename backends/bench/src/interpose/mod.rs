//! What somebody needs who stands between the rings of a driver and a device: guest memory, and
//! eventfds in the place of the peers'.

mod memory;
#[cfg(test)]
pub mod testing;
mod wires;

pub use memory::{Access, Memory, Place};
pub use wires::{Interposed, give_back, is_eventfd, put_back};
