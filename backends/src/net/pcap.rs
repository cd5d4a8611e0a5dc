//! A capture file of all packets, for Wireshark and tcpdump.
//!
//! Format: draft-ietf-opsawg-pcap, nanosecond variant, in this machine's byte order. Twenty lines
//! need no crate: version 2.0 of `pcap-file` makes five writes of a packet and cannot flush a
//! buffer under them, and the version that can is still a release candidate (3.0.0-rc.3).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ratelimit::RateLimit;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
const VERSION: [u16; 2] = [2, 4];
const SNAP_LENGTH: u32 = 262_144;
const LINKTYPE_ETHERNET: u32 = 1;

/// An open capture file. Every packet is written at once, so that it can be read meanwhile and
/// survives a crash.
#[derive(Debug)]
pub struct Capture {
    writer: Mutex<Writer>,
}

#[derive(Debug)]
struct Writer {
    file: File,
    /// A packet with its header, reused.
    record: Vec<u8>,
}

impl Capture {
    /// Creates or truncates `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut header = MAGIC_NANOSECONDS.to_ne_bytes().to_vec();
        header.extend(VERSION.into_iter().flat_map(u16::to_ne_bytes));
        // Time zone and accuracy: always 0.
        for field in [0, 0, SNAP_LENGTH, LINKTYPE_ETHERNET] {
            header.extend(field.to_ne_bytes());
        }
        let mut file = File::create(path)?;
        file.write_all(&header)?;
        let record = Vec::new();
        let writer = Mutex::new(Writer { file, record });
        Ok(Capture { writer })
    }

    /// Adds a frame of `len` bytes, which `fill` writes. A full disk does not stop the network.
    pub fn add<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let length = len as u32;
        let header = [now.as_secs() as u32, now.subsec_nanos(), length, length];
        let mut writer = self.writer.lock().unwrap_or_else(|e| e.into_inner());
        let Writer { file, record } = &mut *writer;
        record.clear();
        record.extend(header.into_iter().flat_map(u32::to_ne_bytes));
        let start = record.len();
        record.resize(start + len, 0);
        fill(&mut record[start..])?;
        if let Err(error) = file.write_all(record) {
            warn_limited!(LOG, %error, "a packet is missing from the capture file");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_laid_out_as_specified() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.pcap");
        let capture = Capture::create(&path).unwrap();
        let add = |len, byte| {
            capture.add(len, |bytes| {
                bytes.fill(byte);
                (byte != 0).then_some(()).ok_or("no such byte")
            })
        };
        add(60, 7).unwrap();
        add(100, 0).unwrap_err();
        add(1514, 8).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 60 + 16 + 1514);
        assert_eq!(bytes[..4], 0xa1b2_3c4du32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1u32.to_ne_bytes());
        assert_eq!(bytes[24 + 8..24 + 12], 60u32.to_ne_bytes());
        assert_eq!(bytes[24 + 16], 7);
        assert_eq!(bytes[24 + 16 + 60 + 12..][..4], 1514u32.to_ne_bytes());
    }
}
