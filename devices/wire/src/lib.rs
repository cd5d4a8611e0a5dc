//! vhost-user messages: bytes and file descriptors on a Unix socket, and what they stand for.
//!
//! A message is a 12-byte header (request, flags, size of the payload; each a `u32` in the byte
//! order of the machine) and a payload. File descriptors travel as `SCM_RIGHTS`. The protocol is
//! that of QEMU's `docs/interop/vhost-user.rst`, "the vhost-user document" here.
//!
//! * [`Connection`] sends and receives messages, and bounds what a peer can make it keep.
//! * [`payload`] has the types of payloads, over those of the `vhost` crate where these serve.
//! * [`frontend`] has the messages of a frontend, each request with the type of its reply.
//! * [`name`], [`features`] and [`DeviceType`] name messages, feature bits and the types of devices.
//!
//! It serves a frontend, a backend, and a test that plays either: a [`Header`] may hold any
//! values, and [`Connection::send_bytes`] sends any bytes. Nothing here knows what a message
//! does: no device, no ring, no guest memory.

mod connection;
pub mod deadline;
mod device_type;
mod error;
pub mod features;
pub mod frontend;
mod header;
mod limits;
mod message;
pub mod name;
pub mod payload;
mod progress;

pub use connection::Connection;
pub use deadline::Deadline;
pub use device_type::{DeviceType, UnknownDeviceType};
pub use error::{PayloadError, WireError};
pub use header::{HEADER_SIZE, Header, NEED_REPLY, REPLY, VERSION};
pub use limits::{BACKEND_FILES, FRONTEND_FILES, MAX_PAYLOAD};
pub use message::{Message, Raw};
pub use payload::Payload;
pub use progress::Progress;
