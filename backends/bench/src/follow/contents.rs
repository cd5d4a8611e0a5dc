//! What is in the buffers of a chain.

use super::descriptor::Buffer;
use crate::interpose::Memory;

/// The first bytes of all readable or all writable buffers, and whether they are all of them.
pub fn read(
    memory: &Memory,
    buffers: &[Buffer],
    is_writable: bool,
    most: usize,
) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    for buffer in buffers.iter().filter(|b| b.is_writable == is_writable) {
        let old = bytes.len();
        let len = (buffer.len as usize).min(most - old);
        bytes.resize(old + len, 0);
        if !memory.copy_guest(buffer.address, &mut bytes[old..]) {
            bytes.truncate(old);
            return (bytes, false);
        }
        if len < buffer.len as usize {
            return (bytes, false);
        }
    }
    (bytes, true)
}

/// The last byte that the device may write.
pub fn last(memory: &Memory, buffers: &[Buffer]) -> Option<u8> {
    let buffer = buffers.iter().rfind(|b| b.is_writable && b.len > 0)?;
    let address = buffer.address.checked_add(u64::from(buffer.len) - 1)?;
    memory.guest(address).map(|[byte]| byte)
}
