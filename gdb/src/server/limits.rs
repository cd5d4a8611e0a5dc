//! Sizes of what goes over the wire.

/// The largest packet, in bytes, either way: 64 KiB of memory in hex, with room
/// for the frame and the address.
pub(crate) const PACKET_SIZE: usize = 128 * 1024 + 64;

/// What is read from a client at once.
pub(super) const BUFFER_SIZE: usize = 64 * 1024;
