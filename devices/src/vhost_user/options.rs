//! The user's options for a backend.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use vhost::vhost_user::message::VhostUserProtocolFeatures;

use super::link::reconnect::Reconnect;
use crate::virtio::DeviceType;

/// Where a backend is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// It listens on this socket.
    Socket(PathBuf),
    /// The other way around: it connects to this socket.
    Listen(PathBuf),
    /// This command line starts it, and a [`Connector`] of the caller's does that.
    Command(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) | Self::Listen(path) => write!(f, "at {}", path.display()),
            Self::Command(command) => write!(f, "`{command}`"),
        }
    }
}

/// How to reach a backend, and what to ask of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The device's name in messages.
    pub id: String,
    pub device_type: DeviceType,
    pub address: Address,
    /// Number of virtqueues, without the control queue of a network device. By
    /// default as many as the backend has, or as the device type needs.
    pub queues: Option<u16>,
    /// Entries of each virtqueue; by default [`Self::QUEUE_SIZE`], or less for
    /// device types whose backends have small ones.
    pub queue_size: Option<u16>,
    /// How long the backend may take over one access of the guest, or over one command.
    pub deadline: Duration,
    /// How long it may take to finish the requests in flight of rings that are to stop.
    pub drain_deadline: Duration,
    /// How long to wait for the backend to listen.
    pub connect_deadline: Duration,
    /// What to do when the backend goes away later.
    pub reconnect: Reconnect,
    /// Device features that the driver is not offered even if the backend has
    /// them, one bit a feature.
    pub masked_features: u64,
    /// Protocol features that are not used even if the backend has them.
    pub masked_protocol: VhostUserProtocolFeatures,
}

impl Options {
    /// A queue size that backends of most types accept.
    pub const QUEUE_SIZE: u16 = 256;
    pub const DEADLINE: Duration = Duration::from_secs(5);
    pub const DRAIN_DEADLINE: Duration = Duration::from_secs(120);
    pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

    /// Options with the defaults, for a backend that listens on `socket`.
    pub fn new(id: impl Into<String>, device_type: DeviceType, socket: impl Into<PathBuf>) -> Self {
        Self {
            id: id.into(),
            device_type,
            address: Address::Socket(socket.into()),
            queues: None,
            queue_size: None,
            deadline: Self::DEADLINE,
            drain_deadline: Self::DRAIN_DEADLINE,
            connect_deadline: Self::CONNECT_DEADLINE,
            reconnect: Reconnect::default(),
            masked_features: 0,
            masked_protocol: VhostUserProtocolFeatures::empty(),
        }
    }
}
