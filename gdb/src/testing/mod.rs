//! A toy machine and clients for it.

mod guest;
mod rsp;
mod toy;

pub(crate) use guest::Guest;
pub(crate) use rsp::{Rsp, packet};
pub(crate) use toy::{ALL_TRAPS, HIGH, Toy, Watcher};
