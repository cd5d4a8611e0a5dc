//! The network device (virtio 1.3, section 5.1).
//!
//! * [`link`] is the host's end: [`tap`] is the kernel's, by its
//!   name ([`tap_name`]) or a descriptor ([`tap_fd`]), [`stream`] a socket, to which
//!   `outgoing` writes many frames at once;
//! * [`packet`] moves one packet between a link and descriptor chains, [`pcap`] captures it;
//! * [`config`] is the configuration space, [`speed`] a part of it, [`control`] the driver's commands, [`wishes`] the
//!   settings that they have made, [`filter`] the packets that it wants to receive;
//! * [`backend`] connects all that, [`args`] says what of it users choose.

pub mod args;
pub mod backend;
pub mod config;
pub mod control;
pub mod filter;
pub mod link;
mod outgoing;
pub mod packet;
pub mod pcap;
pub mod speed;
pub mod stream;
pub mod tap;
pub mod tap_fd;
pub mod tap_name;
pub mod wishes;

/// Largest ring.
pub const MAX_QUEUE_SIZE: u16 = 1024;
