//! The frontend side of vhost-user: devices that live in another process.
//!
//! A [`Frontend`] is a device of any type over the protocol of QEMU's `docs/interop/vhost-user.rst`, "the
//! vhost-user document" here. It is [`share`]d by a transport, as its
//! [`Device`](crate::virtio::Device), and whoever has the [`Handle`] beside it. Every wait on a backend ends at a deadline.
//!
//! * `session` is one connection: the agreement on it, and the messages.
//! * `link` is whether there is a backend: how it is reached, and when it is tried again.
//! * `frontend` is the device: it keeps the driver's setup and has another backend resume it.

mod error;
mod events;
mod frontend;
mod handle;
mod link;
mod options;
mod profile;
mod session;

pub use error::{Error, Problem};
pub use frontend::{Frontend, QueueHealth};
pub use handle::{Handle, share};
pub use link::backend_status::{Backend, BackendStatus};
pub use link::connector::Connector;
pub use link::reach::connector;
pub use link::reconnect::Reconnect;
pub use options::{Address, Options};
pub use session::channel_error::ChannelError;
pub use session::negotiate::parse_protocol;
pub use session::shared_memory;
