//! Reading a configuration space whose length only the backend knows.
//!
//! GET_CONFIG names a length, and backends differ in what they accept. Those
//! based on the rust-vmm crates refuse all but the length they have; those of
//! QEMU refuse more than they have. So the known lengths are tried, longest
//! first, and the first that works stays.

use vhost_user_wire::frontend::GetConfig;

use super::channel::Channel;
use super::channel_error::ChannelError;
use crate::deadline::Deadline;

/// Finds the length that can be read. `None` when every length is refused.
pub fn probe(
    channel: &mut Channel,
    sizes: &[u32],
    deadline: &Deadline,
) -> Result<Option<(u32, Vec<u8>)>, ChannelError> {
    for &size in sizes {
        let bytes = read(channel, size, deadline)?;
        if !bytes.is_empty() {
            return Ok(Some((size, bytes)));
        }
    }
    Ok(None)
}

/// Reads up to `size` bytes; none when the backend refuses.
pub fn read(
    channel: &mut Channel,
    size: u32,
    deadline: &Deadline,
) -> Result<Vec<u8>, ChannelError> {
    let mut bytes = channel.ask(&GetConfig { size }, deadline)?.0;
    bytes.truncate(size as usize);
    Ok(bytes)
}
