//! What a trace consists of. Every format writes these, and nothing else.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use vhost_user_wire::{DeviceType, Header};

/// The begin of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The version of the records behind it.
    pub trace: u32,
    /// Since 1970, in seconds and nanoseconds.
    pub seconds: u64,
    pub nanoseconds: u32,
}

/// The version of [`Record`] that this program writes.
pub const VERSION: u32 = 1;

impl Start {
    pub fn now() -> Self {
        // A clock before 1970 is set wrong, and nothing here depends on it.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self::at(since.unwrap_or_default())
    }

    /// A trace that began so long after 1970.
    pub fn at(since: Duration) -> Self {
        Self {
            trace: VERSION,
            seconds: since.as_secs(),
            nanoseconds: since.subsec_nanos(),
        }
    }

    /// Since 1970.
    pub fn since_epoch(&self) -> Duration {
        Duration::new(self.seconds, self.nanoseconds)
    }
}

/// Something that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Position in the trace, from 0.
    pub number: u64,
    /// Nanoseconds since the start of the trace.
    pub time: u64,
    pub device: String,
    /// The device ID, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<u32>,
    /// Connections are numbered from 1 in the order in which they began.
    pub connection: u32,
    #[serde(flatten)]
    pub event: Event,
}

impl Record {
    pub fn device_type(&self) -> Option<DeviceType> {
        self.device_type.and_then(DeviceType::new)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A frontend and a backend are connected.
    Connected,
    Message(Message),
    /// Bytes that are no whole message: the begin of one behind which the peer hung up, or the
    /// rest of one that is too long to be kept.
    Fragment(Fragment),
    /// One side has hung up.
    Closed {
        by: Side,
    },
    /// The driver has something for the device (seen with --rings, as all that follows).
    Kick {
        queue: u8,
    },
    /// The device has something for the driver.
    Call {
        queue: u8,
    },
    /// The driver has made a chain of buffers available.
    Available(Available),
    /// The device has used a chain.
    Used(Used),
    /// The proxy was told to do something wrong here (--faults).
    Fault {
        /// What passed.
        at: String,
        what: String,
    },
    /// The connection was open when the trace ended.
    End,
    /// So many records were dropped here, because the trace could not be written as fast.
    Lost {
        records: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Frontend,
    Backend,
}

impl Side {
    pub fn other(self) -> Self {
        match self {
            Self::Frontend => Self::Backend,
            Self::Backend => Self::Frontend,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        }
    }
}

/// A message as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whose requests travel on this socket: the backend's have a socket of their own.
    pub channel: Side,
    pub from: Side,
    pub request: u32,
    pub flags: u32,
    pub size: u32,
    #[serde(with = "super::escape::hex")]
    pub payload: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Descriptor>,
    /// Of a reply: nanoseconds since its request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<u64>,
}

impl Message {
    pub fn header(&self) -> Header {
        Header {
            request: self.request,
            flags: self.flags,
            size: self.size,
        }
    }

    /// Whether it answers a request. (Each side sends only replies on the other's channel.)
    pub fn is_reply(&self) -> bool {
        self.header().is_reply()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Available {
    pub queue: u8,
    /// The number of its first descriptor.
    pub head: u16,
    /// What is asked of the device, in words that begin with the request's name.
    pub what: String,
    pub buffers: Vec<Buffer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    pub queue: u8,
    pub head: u16,
    /// Bytes that the device says it has written.
    pub written: u32,
    /// What was asked, where the chain was seen when it was made available.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// How it went, where the device says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<String>,
    /// Nanoseconds since the chain was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<u64>,
}

/// One descriptor of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Buffer {
    pub address: u64,
    pub len: u32,
    /// For the device.
    pub is_writable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    pub channel: Side,
    pub from: Side,
    #[serde(with = "super::escape::hex")]
    pub bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Descriptor>,
}

/// A file descriptor by what it refers to: descriptors with the same number are for the same
/// object of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Descriptor {
    /// From 1, in the order in which the objects were first seen.
    pub number: u32,
    /// `eventfd`, `socket`, `pipe`, `memfd:NAME` or a path.
    pub kind: String,
}
