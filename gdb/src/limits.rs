//! What gdb and this end say at once, at most.

/// The largest packet, in bytes, either way: 64 KiB of memory in hex, with room
/// for the frame and the address.
pub(crate) const PACKET_SIZE: usize = 128 * 1024 + 64;
