//! What the programs want of the host alike.
//!
//! Nothing here knows a machine, a device or a protocol.

pub mod errors;
pub mod escape;
pub mod files;
pub mod last_resort;
pub mod sockets;
