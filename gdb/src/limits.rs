//! The size limit of a packet, in either direction.

/// The largest packet, in bytes, either way: 64 KiB of memory in hex, with room
/// for the frame and the address.
pub(crate) const PACKET_SIZE: usize = 128 * 1024 + 64;
