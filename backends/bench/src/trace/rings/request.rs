//! What a chain of buffers in guest memory asks of a device.

use vhost_user_wire::DeviceType;

use crate::device::{self, LOOKED_AT, Outline};
use crate::interpose::Memory;
use crate::trace::record::Buffer;

/// In words.
pub fn describe(
    device_type: Option<DeviceType>,
    queue: u8,
    buffers: &[Buffer],
    memory: &Memory,
) -> String {
    let outline = Outline {
        queue,
        begin: &begin(buffers, memory),
        readable: sum(buffers, false),
        writable: sum(buffers, true),
    };
    device::describe(device_type, &outline)
}

/// The first bytes that the device may read, as far as they are in memory.
fn begin(buffers: &[Buffer], memory: &Memory) -> Vec<u8> {
    let mut bytes = Vec::new();
    for buffer in buffers.iter().filter(|buffer| !buffer.is_writable) {
        let old = bytes.len();
        let len = (LOOKED_AT - old).min(buffer.len as usize);
        bytes.resize(old + len, 0);
        if !memory.copy_guest(buffer.address, &mut bytes[old..]) {
            bytes.truncate(old);
            return bytes;
        }
    }
    bytes
}

/// How the device says that it went, when it has used the chain.
pub fn result(
    device_type: Option<DeviceType>,
    buffers: &[Buffer],
    memory: &Memory,
) -> Option<String> {
    let status = buffers.iter().rfind(|buffer| buffer.is_writable)?;
    let last = u64::from(status.len.checked_sub(1)?);
    let [status] = memory.guest(status.address.checked_add(last)?)?;
    device::result(device_type, status)
}

fn sum(buffers: &[Buffer], is_writable: bool) -> u64 {
    let these = buffers
        .iter()
        .filter(|buffer| buffer.is_writable == is_writable);
    these.map(|buffer| u64::from(buffer.len)).sum()
}
