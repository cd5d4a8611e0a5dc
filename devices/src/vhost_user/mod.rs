//! The frontend side of vhost-user: devices that live in another process.
//!
//! [`Frontend`] implements [`Device`](crate::virtio::Device) for any device
//! type over the protocol of QEMU's `docs/interop/vhost-user.rst`, "the
//! vhost-user document" here. Every wait on a backend ends at a deadline.
//!
//! * `session` is one connection: what is agreed on it, and what is said.
//! * `link` is how a backend is reached, and when it is tried again.
//! * `frontend` is what the driver has set up, how another backend resumes it, and the device.

mod error;
mod frontend;
mod link;
mod options;
mod profile;
mod session;

pub use error::{Error, Problem};
pub use frontend::Frontend;
pub use link::connector::Connector;
pub use link::reconnect::Reconnect;
pub use options::{Address, Options};
pub use session::channel::ChannelError;
pub use session::negotiate::parse_protocol;
pub use session::shared_memory;
