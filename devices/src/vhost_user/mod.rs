//! The frontend side of vhost-user: devices that live in another process.
//!
//! [`Frontend`] implements [`Device`](crate::virtio::Device) for any device
//! type over the protocol of QEMU's `docs/interop/vhost-user.rst`, "the
//! vhost-user document" here. Every wait on a backend ends at a deadline.

mod channel;
mod config;
mod connect;
mod deadline;
mod error;
mod events;
mod frontend;
mod inflight;
mod listen;
mod memory;
mod message;
mod negotiate;
mod profile;
mod reconnect;
mod recovery;
mod requests;
mod ring;
mod session;

use std::path::PathBuf;
use std::time::Duration;

use crate::virtio::DeviceType;

pub use channel::ChannelError;
pub use error::{Error, Problem};
pub use frontend::Frontend;
pub use reconnect::Reconnect;

/// How to reach a backend, and what to ask of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The device's name in messages.
    pub id: String,
    pub device_type: DeviceType,
    /// The socket that the backend listens on.
    pub socket: PathBuf,
    /// The other way around: this side listens on `socket`, and the backend
    /// connects to it.
    pub listen: bool,
    /// Number of virtqueues, without the control queue of a network device.
    /// By default what the backend has, or what the device type needs.
    pub queues: Option<u16>,
    /// Entries of each virtqueue; by default [`Self::QUEUE_SIZE`], or less for
    /// device types whose backends have small ones.
    pub queue_size: Option<u16>,
    /// How long the backend may take to do one thing that is asked of it.
    pub deadline: Duration,
    /// How long to wait for the backend to listen.
    pub connect_deadline: Duration,
    /// What to do when the backend goes away later.
    pub reconnect: Reconnect,
    /// Device features that the driver is not offered even if the backend has
    /// them, one bit a feature.
    pub masked_features: u64,
}

impl Options {
    /// A queue size that backends of most types accept.
    pub const QUEUE_SIZE: u16 = 256;
    pub const DEADLINE: Duration = Duration::from_secs(5);
    pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

    /// Options with the defaults.
    pub fn new(id: impl Into<String>, device_type: DeviceType, socket: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            device_type,
            socket: socket.into(),
            listen: false,
            queues: None,
            queue_size: None,
            deadline: Self::DEADLINE,
            connect_deadline: Self::CONNECT_DEADLINE,
            reconnect: Reconnect::default(),
            masked_features: 0,
        }
    }
}
