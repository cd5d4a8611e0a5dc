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
    file: Mutex<File>,
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
        Ok(Capture {
            file: Mutex::new(file),
        })
    }

    /// Adds a frame. A full disk does not stop the network.
    pub fn add(&self, frame: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let length = frame.len() as u32;
        let mut record = Vec::with_capacity(16 + frame.len());
        for field in [now.as_secs() as u32, now.subsec_nanos(), length, length] {
            record.extend(field.to_ne_bytes());
        }
        record.extend_from_slice(frame);
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        if let Err(error) = file.write_all(&record) {
            warn_limited!(LOG, %error, "a packet is missing from the capture file");
        }
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
        capture.add(&[7; 60]);
        capture.add(&[8; 1514]);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 24 + 16 + 60 + 16 + 1514);
        assert_eq!(bytes[..4], 0xa1b2_3c4du32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1u32.to_ne_bytes());
        assert_eq!(bytes[24 + 8..24 + 12], 60u32.to_ne_bytes());
        assert_eq!(bytes[24 + 16], 7);
        assert_eq!(bytes[24 + 16 + 60 + 12..][..4], 1514u32.to_ne_bytes());
    }
}
