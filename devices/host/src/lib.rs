//! Host facilities that all programs share.
//!
//! Nothing here knows a machine, a device or a protocol.

pub mod command;
pub mod errors;
pub mod escape;
pub mod files;
pub mod last_resort;
pub mod mapping;
mod programs;
pub mod sandbox;
pub mod sockets;
