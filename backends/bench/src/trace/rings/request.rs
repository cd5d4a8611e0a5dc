//! What a chain of buffers in guest memory asks of a device.

use vhost_user_wire::DeviceType;

use crate::device::{self, LOOKED_AT, Outline};
use crate::follow::{Buffer, last, read};
use crate::interpose::Memory;

/// In words.
pub fn describe(
    device_type: Option<DeviceType>,
    queue: u8,
    buffers: &[Buffer],
    memory: &Memory,
) -> String {
    let outline = Outline {
        queue,
        begin: &read(memory, buffers, false, LOOKED_AT).0,
        readable: sum(buffers, false),
        writable: sum(buffers, true),
    };
    device::describe(device_type, &outline)
}

/// How the device says that it went, when it has used the chain.
pub fn result(
    device_type: Option<DeviceType>,
    buffers: &[Buffer],
    memory: &Memory,
) -> Option<String> {
    device::result(device_type, last(memory, buffers)?)
}

fn sum(buffers: &[Buffer], is_writable: bool) -> u64 {
    let these = buffers
        .iter()
        .filter(|buffer| buffer.is_writable == is_writable);
    these.map(|buffer| u64::from(buffer.len)).sum()
}
