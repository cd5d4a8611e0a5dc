//! A toy machine and clients for it.

mod guest;
mod rsp;
mod scripted;
mod toy;

pub(crate) use guest::Guest;
pub(crate) use rsp::{Rsp, packet};
pub(crate) use scripted::{Hand, Scripted};
pub(crate) use toy::{ALL_TRAPS, HIGH, Held, LONG_MODE, Toy, Watcher};
