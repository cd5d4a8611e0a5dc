//! The backend kit: everything a vhost-user device process needs except the device.
//!
//! A backend is written against [`virtio::VirtioDevice`], or, where that is not enough, against
//! [`vhost_user_backend::VhostUserBackend`], the trait of the rust-vmm crate of that name, and
//! handed to [`daemon::Daemon`], which listens on a Unix socket and serves one frontend after
//! another:
//!
//! ```text
//! socket --wire--> session --vring, memory--> worker --handle_event--> device
//! ```
//!
//! * [`vhost_user_wire`] turns bytes and file descriptors into requests and replies; it decides
//!   nothing.
//! * [`session`] turns one request into a change of state and an answer.
//! * [`vring`] collects the frontend's setup of a ring until it is enough to start it.
//! * [`memory`] keeps the memory table and translates addresses.
//! * [`worker`] runs the device: one thread and one epoll instance per entry of
//!   `queues_per_thread`.
//! * [`inflight`] records, where a successor finds them, the chains that were taken from a ring and
//!   not finished.
//! * [`page_log`] tells a frontend which pages of its memory a device has written.
//! * [`packed`] is a packed ring, which the rust-vmm crates lack.
//!
//! For the data path, [`pump`] takes chains from a ring in batches, [`request`] lets a device
//! finish one now or later, [`chain`] shows a chain as bytes whatever its descriptors, and
//! [`iovec`] hands those bytes to the kernel without a copy. [`virtio`] puts these together for a
//! device that only has to process chains.
//!
//! Device logic lives beside it ([`blk`], [`console`], [`net`], [`rng`]) and knows no eventfd, no socket and no thread.
//!
//! Protocol: the vhost-user document of the QEMU project; rings: virtio 1.3, section 2.

mod area;
#[cfg(test)]
mod area_model;
pub mod blk;
pub mod capabilities;
pub mod chain;
pub mod cli;
pub mod console;
pub mod daemon;
pub mod device;
mod drain;
pub mod error_sign;
mod fd;
pub mod inflight;
pub mod iovec;
pub mod listener;
pub mod listeners;
pub mod log;
mod look_again;
pub mod memory;
pub mod needs_reset;
pub mod net;
pub mod notifier;
pub mod outbox;
pub mod packed;
pub mod page_log;
mod patience;
pub mod peer;
mod pending;
mod polling;
pub mod prelude;
mod pressure;
pub mod processors;
pub mod progress;
pub mod pump;
pub mod pump_backend;
mod ram_area;
pub mod ratelimit;
pub mod request;
mod ring;
pub mod rng;
pub mod sandbox;
pub mod session;
pub mod shutdown;
mod split;
mod stdio;
#[cfg(test)]
mod testing;
mod transfer;
mod turn;
pub mod virtio;
pub mod vring;
mod wakers;
mod walk;
pub mod worker;
