//! What a chain of buffers asks of a device, by its type (virtio 1.4, section 5).

use vhost_user_wire::DeviceType;

use super::memory::Memory;
use crate::trace::record::Buffer;

/// Bytes of a console's output that are shown.
const SHOWN: usize = 32;

/// In words.
pub fn describe(
    device_type: Option<DeviceType>,
    queue: u8,
    buffers: &[Buffer],
    memory: &Memory,
) -> String {
    let known = match device_type {
        Some(DeviceType::BLK) => block(buffers, memory),
        Some(DeviceType::NET) => network(queue, buffers, memory),
        Some(DeviceType::CONSOLE) => console(queue, buffers, memory),
        Some(DeviceType::RNG) => Some(format!("entropy, {} bytes", sum(buffers, true))),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let (readable, writable) = (sum(buffers, false), sum(buffers, true));
        format!("{readable} bytes to read, {writable} bytes to write")
    })
}

/// How the device says that it went, when it has used the chain.
pub fn result(
    device_type: Option<DeviceType>,
    buffers: &[Buffer],
    memory: &Memory,
) -> Option<String> {
    if device_type != Some(DeviceType::BLK) {
        return None;
    }
    let status = buffers.iter().rfind(|buffer| buffer.is_writable)?;
    let last = u64::from(status.len.checked_sub(1)?);
    let [status] = memory.guest(status.address.checked_add(last)?)?;
    Some(match status {
        0 => "OK".into(),
        1 => "IOERR".into(),
        2 => "UNSUPP".into(),
        other => format!("status {other}"),
    })
}

fn sum(buffers: &[Buffer], is_writable: bool) -> u64 {
    let these = buffers
        .iter()
        .filter(|buffer| buffer.is_writable == is_writable);
    these.map(|buffer| u64::from(buffer.len)).sum()
}

/// Section 5.2.6: type, a reserved word, sector; data; a byte of status.
fn block(buffers: &[Buffer], memory: &Memory) -> Option<String> {
    let header: [u8; 16] = memory.guest(buffers.first()?.address)?;
    let (kind, rest) = header.split_first_chunk()?;
    let sector = u64::from_le_bytes(*rest.last_chunk()?);
    let written = sum(buffers, true).saturating_sub(1);
    let read = sum(buffers, false).saturating_sub(16);
    Some(match u32::from_le_bytes(*kind) {
        0 => format!("IN sector {sector}, {written} bytes"),
        1 => format!("OUT sector {sector}, {read} bytes"),
        4 => "FLUSH".into(),
        8 => "GET_ID".into(),
        10 => "GET_LIFETIME".into(),
        11 => format!("DISCARD, {read} bytes of ranges"),
        13 => format!("WRITE_ZEROES, {read} bytes of ranges"),
        14 => format!("SECURE_ERASE, {read} bytes of ranges"),
        other => format!("request {other}, sector {sector}"),
    })
}

/// Section 5.1.6: a header of 12 bytes, which may be a buffer of its own, and a frame.
const NET_HEADER: u32 = 12;

fn network(queue: u8, buffers: &[Buffer], memory: &Memory) -> Option<String> {
    if queue.is_multiple_of(2) {
        return Some(format!("room for {} bytes", sum(buffers, true)));
    }
    let len = sum(buffers, false).saturating_sub(NET_HEADER.into());
    let first = buffers.first()?;
    let frame = match first.len {
        NET_HEADER => buffers.get(1)?.address,
        _ => first.address.checked_add(NET_HEADER.into())?,
    };
    let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, t0, t1] = memory.guest(frame)?;
    let kind = u16::from_be_bytes([t0, t1]);
    Some(format!(
        "frame of {len} bytes to {d0:02x}:{d1:02x}:{d2:02x}:{d3:02x}:{d4:02x}:{d5:02x}, type {kind:#06x}"
    ))
}

/// Section 5.3.2: port 0 is on queues 0 and 1, the control queues are 2 and 3.
fn console(queue: u8, buffers: &[Buffer], memory: &Memory) -> Option<String> {
    if queue.is_multiple_of(2) {
        return Some(format!("room for {} bytes", sum(buffers, true)));
    }
    let first = buffers.first()?;
    let len = SHOWN.min(usize::try_from(first.len).ok()?);
    let read = |n| {
        let address = first.address.checked_add(n as u64)?;
        memory.guest::<1>(address).map(|[byte]| byte)
    };
    let text: Vec<u8> = (0..len).map_while(read).collect();
    let text = String::from_utf8_lossy(&text);
    Some(format!("{text:?}, {} bytes", sum(buffers, false)))
}
