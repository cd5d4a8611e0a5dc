//! What a recording consists of.
//!
//! The order of the variants and of their fields is part of the format (docs/replay.md): whoever
//! changes them counts [`VERSION`](super::file::VERSION) up.

use serde::{Deserialize, Serialize};
use vhost_user_wire::DeviceType;

/// The begin of a recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// As its socket is called.
    pub device: String,
    /// The device ID, where it is known.
    pub device_type: Option<u32>,
    /// Seconds since 1970.
    pub began: u64,
}

impl Header {
    pub fn device_type(&self) -> Option<DeviceType> {
        self.device_type.and_then(DeviceType::new)
    }
}

/// Something that happened, in the order in which it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// A frontend has connected to a backend. There is one connection at a time.
    Connected,
    /// SET_PROTOCOL_FEATURES.
    ProtocolFeatures(u64),
    /// SET_FEATURES.
    Features(u64),
    /// SET_STATUS.
    Status(u64),
    /// RESET_DEVICE.
    Reset,
    /// The frontend has read the configuration space.
    Config(Config),
    /// The frontend has written the configuration space.
    ConfigWritten(Config),
    /// A ring runs from here on.
    Start(Start),
    /// SET_VRING_ENABLE.
    Enable { queue: u8, on: bool },
    /// A ring has stopped. Its requests that have not been used are not used any more.
    Stop { queue: u8, base: u32 },
    /// The driver has made a chain of buffers available.
    Submit(Submit),
    /// The device has used one.
    Used(Used),
    /// The connection is over.
    Closed { by_backend: bool },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    pub offset: u32,
    #[serde(with = "super::bytes")]
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    pub queue: u8,
    /// In descriptors.
    pub size: u16,
    /// As SET_VRING_BASE has it.
    pub base: u32,
}

/// One buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    pub len: u32,
    /// For the device.
    pub is_writable: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Submit {
    /// Nanoseconds since the begin.
    pub time: u64,
    /// Requests are numbered from 1, over all queues and connections.
    pub number: u64,
    pub queue: u8,
    /// The first descriptor of a split ring, or the buffer ID of a packed one.
    pub id: u16,
    pub elements: Vec<Element>,
    /// So many elements stand before those of an indirect table, if there is one.
    pub table_after: Option<u16>,
    /// The content of all readable elements.
    #[serde(with = "super::bytes")]
    pub readable: Vec<u8>,
    /// Why the request could not be recorded as it was, if so.
    pub trouble: Option<String>,
}

impl Submit {
    pub fn readable_len(&self) -> u64 {
        self.sum(false)
    }

    pub fn writable_len(&self) -> u64 {
        self.sum(true)
    }

    fn sum(&self, is_writable: bool) -> u64 {
        let elements = self.elements.iter();
        let these = elements.filter(|element| element.is_writable == is_writable);
        these.map(|element| u64::from(element.len)).sum()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Nanoseconds since the begin.
    pub time: u64,
    /// Of the request.
    pub number: u64,
    /// Bytes that the device says it has written.
    pub len: u32,
    /// As many bytes of the writable elements, or all of them if they are fewer.
    #[serde(with = "super::bytes")]
    pub written: Vec<u8>,
    /// The last writable byte, which for some devices is a status.
    pub last: Option<u8>,
}
