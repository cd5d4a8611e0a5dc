//! The network device (virtio 1.3, section 5.1).
//!
//! * [`link`] is what packets come from and go to; [`tap`] is the kernel's;
//! * [`packet`] moves one packet between a link and a descriptor chain;
//! * [`config`] is what the driver can know;
//! * [`backend`] connects it to rings and threads.
//!
//! There is no control queue: offering one without serving it hangs the driver at its probe.

pub mod backend;
pub mod config;
pub mod link;
pub mod packet;
pub mod tap;

/// Largest ring.
pub const MAX_QUEUE_SIZE: u16 = 1024;
