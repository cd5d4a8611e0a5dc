//! What a request asks of a device, by its type (virtio 1.4, section 5).

use vhost_user_wire::DeviceType;

/// Bytes of the readable part that [`describe`] looks at.
pub const LOOKED_AT: usize = 64;

/// Bytes of a console's output that are shown.
const SHOWN: usize = 32;

/// A request as far as it has to be known to be named.
#[derive(Clone, Copy, Debug)]
pub struct Outline<'a> {
    pub queue: u8,
    /// The readable part, or its first [`LOOKED_AT`] bytes.
    pub begin: &'a [u8],
    /// Bytes of the parts that the device may read, and write.
    pub readable: u64,
    pub writable: u64,
}

/// In words that begin with the request's name.
pub fn describe(device_type: Option<DeviceType>, request: &Outline<'_>) -> String {
    let known = match device_type {
        Some(DeviceType::BLK) => block(request),
        Some(DeviceType::NET) => network(request),
        Some(DeviceType::CONSOLE) => Some(console(request)),
        Some(DeviceType::RNG) => Some(format!("entropy, {} bytes", request.writable)),
        Some(DeviceType::FS) => file_system(request),
        _ => None,
    };
    known.unwrap_or_else(|| {
        let Outline {
            readable, writable, ..
        } = request;
        format!("{readable} bytes to read, {writable} bytes to write")
    })
}

/// How the device says that it went, by the last byte that it has written.
pub fn result(device_type: Option<DeviceType>, last: u8) -> Option<String> {
    if device_type != Some(DeviceType::BLK) {
        return None;
    }
    Some(match last {
        0 => "OK".into(),
        1 => "IOERR".into(),
        2 => "UNSUPP".into(),
        other => format!("status {other}"),
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Section 5.2.6: type, a reserved word, sector; data; a byte of status.
fn block(request: &Outline<'_>) -> Option<String> {
    let kind = u32_at(request.begin, 0)?;
    let sector = u64::from_le_bytes(*request.begin.get(8..)?.first_chunk()?);
    let written = request.writable.saturating_sub(1);
    let read = request.readable.saturating_sub(16);
    Some(match kind {
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

/// Section 5.1.6: a header of 12 bytes, and a frame.
const NET_HEADER: usize = 12;

fn network(request: &Outline<'_>) -> Option<String> {
    if request.readable == 0 {
        return Some(format!("room for {} bytes", request.writable));
    }
    if request.writable > 0 {
        let [class, command] = *request.begin.first_chunk()?;
        return Some(format!("control class {class} command {command}"));
    }
    let len = request.readable.saturating_sub(NET_HEADER as u64);
    let [d0, d1, d2, d3, d4, d5, _, _, _, _, _, _, t0, t1] =
        *request.begin.get(NET_HEADER..)?.first_chunk()?;
    let kind = u16::from_be_bytes([t0, t1]);
    Some(format!(
        "frame of {len} bytes to {d0:02x}:{d1:02x}:{d2:02x}:{d3:02x}:{d4:02x}:{d5:02x}, type {kind:#06x}"
    ))
}

/// Section 5.3.2: port 0 is on queues 0 and 1, the control queues are 2 and 3.
fn console(request: &Outline<'_>) -> String {
    if request.queue.is_multiple_of(2) {
        return format!("room for {} bytes", request.writable);
    }
    let text = &request.begin[..request.begin.len().min(SHOWN)];
    let text = String::from_utf8_lossy(text);
    format!("{text:?}, {} bytes", request.readable)
}

/// Section 5.11.6: FUSE's own header, as `include/uapi/linux/fuse.h` has it.
fn file_system(request: &Outline<'_>) -> Option<String> {
    let opcode = u32_at(request.begin, 4)?;
    let node = u64::from_le_bytes(*request.begin.get(16..)?.first_chunk()?);
    let name = match opcode {
        1 => "LOOKUP",
        2 => "FORGET",
        3 => "GETATTR",
        4 => "SETATTR",
        5 => "READLINK",
        8 => "MKNOD",
        9 => "MKDIR",
        10 => "UNLINK",
        11 => "RMDIR",
        12 => "RENAME",
        14 => "OPEN",
        15 => "READ",
        16 => "WRITE",
        17 => "STATFS",
        18 => "RELEASE",
        20 => "FSYNC",
        22 => "GETXATTR",
        23 => "LISTXATTR",
        25 => "FLUSH",
        26 => "INIT",
        27 => "OPENDIR",
        28 => "READDIR",
        29 => "RELEASEDIR",
        35 => "CREATE",
        44 => "READDIRPLUS",
        _ => return Some(format!("FUSE request {opcode} of node {node}")),
    };
    Some(format!("{name} of node {node}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(device_type: DeviceType, queue: u8, begin: &[u8], writable: u64) -> String {
        let outline = Outline {
            queue,
            begin,
            readable: begin.len() as u64,
            writable,
        };
        describe(Some(device_type), &outline)
    }

    #[test]
    fn requests_have_names() {
        let mut read = [0; 16];
        read[8] = 3;
        let text = named(DeviceType::BLK, 0, &read, 513);
        assert_eq!(text, "IN sector 3, 512 bytes");
        let text = named(DeviceType::NET, 2, &[1, 0], 1);
        assert_eq!(text, "control class 1 command 0");
        let text = named(DeviceType::NET, 0, &[], 1526);
        assert_eq!(text, "room for 1526 bytes");
        let mut lookup = [0; 45];
        (lookup[4], lookup[16]) = (1, 9);
        assert_eq!(named(DeviceType::FS, 1, &lookup, 80), "LOOKUP of node 9");
        // Too short to be one of the device's.
        let text = named(DeviceType::BLK, 0, &[0; 4], 1);
        assert_eq!(text, "4 bytes to read, 1 bytes to write");
    }
}
