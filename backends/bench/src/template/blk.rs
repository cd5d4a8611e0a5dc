//! The device: a disk in a file (virtio 1.4, section 5.2). A request has a header, data, and a
//! status in its last byte.
//!
//! It serves one request after another on the thread of its queue. How requests are served beside
//! each other is in the kit's documentation, at `Outcome::Pending`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use anyhow::Context;
use backends::prelude::*;

const SECTOR: u64 = 512;
/// Bytes before the data: type, four reserved ones, and a sector.
const HEADER: u64 = 16;
/// Bytes that are read or written at once.
const PIECE: u64 = 64 << 10;
/// Bytes of the configuration space, up to the fields of write zeroes (section 5.2.4).
const CONFIG: usize = 60;
/// Bytes of a new disk.
const NEW_DISK: u64 = 64 << 20;

/// VIRTIO_BLK_F_FLUSH.
const FLUSH: u64 = 1 << 9;

/// Types of requests (section 5.2.6).
const T_IN: u32 = 0;
const T_OUT: u32 = 1;
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;

/// The ID that the driver reads, padded with zeroes.
const ID: &[u8; 20] = b"outboard-new-backend";

/// The last byte of an answer (section 5.2.6).
#[derive(Clone, Copy)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// The device's own options.
#[derive(clap::Args)]
pub struct Options {
    /// The disk's file; one that is not there is created, with 64 MiB
    #[arg(long, value_name = "FILE")]
    path: PathBuf,
}

pub struct Device {
    file: File,
    sectors: u64,
}

impl Device {
    pub fn open(options: &Options) -> anyhow::Result<Self> {
        let path = options.path.display();
        let mut how = OpenOptions::new();
        how.read(true).write(true).create(true).truncate(false);
        let opened = how.open(&options.path);
        let file = opened.with_context(|| format!("cannot open the disk {path}"))?;
        let size = || -> std::io::Result<u64> {
            if file.metadata()?.len() == 0 {
                file.set_len(NEW_DISK)?;
            }
            Ok(file.metadata()?.len())
        };
        let size = size().with_context(|| format!("cannot find the size of the disk {path}"))?;
        let sectors = size / SECTOR;
        Ok(Self { file, sectors })
    }

    /// Executes a request. Returns how many bytes of its data were written for the driver.
    fn execute(&self, memory: &GuestRam, request: &Request) -> Result<u64, Status> {
        let chain = &request.chain;
        let mut header = [0; HEADER as usize];
        chain.readable.read(memory, 0, &mut header)?;
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            T_IN => self.read(memory, &chain.writable, sector),
            T_OUT => {
                self.write(memory, &chain.readable, sector)?;
                // Without FLUSH the driver has no other way to make its data safe.
                if request.features & FLUSH == 0 {
                    self.file.sync_data()?;
                }
                Ok(0)
            }
            T_FLUSH => Ok(self.file.sync_data().map(|()| 0)?),
            T_GET_ID => {
                chain.writable.write(memory, 0, ID)?;
                Ok(ID.len() as u64)
            }
            _ => Err(Status::Unsupported),
        }
    }

    /// All of the buffer but its last byte, which is the status.
    fn read(&self, memory: &GuestRam, buffer: &Buffers, sector: u64) -> Result<u64, Status> {
        let len = buffer.len() - 1;
        let start = self.place(sector, len)?;
        let mut piece = vec![0; PIECE.min(len) as usize];
        for offset in (0..len).step_by(PIECE as usize) {
            let bytes = &mut piece[..PIECE.min(len - offset) as usize];
            self.file.read_exact_at(bytes, start + offset)?;
            buffer.write(memory, offset, bytes)?;
        }
        Ok(len)
    }

    /// All of the buffer behind the header.
    fn write(&self, memory: &GuestRam, buffer: &Buffers, sector: u64) -> Result<(), Status> {
        let len = buffer.len() - HEADER;
        let start = self.place(sector, len)?;
        let mut piece = vec![0; PIECE.min(len) as usize];
        for offset in (0..len).step_by(PIECE as usize) {
            let bytes = &mut piece[..PIECE.min(len - offset) as usize];
            buffer.read(memory, HEADER + offset, bytes)?;
            self.file.write_all_at(bytes, start + offset)?;
        }
        Ok(())
    }

    /// Where `len` bytes from `sector` on are in the file.
    fn place(&self, sector: u64, len: u64) -> Result<u64, Status> {
        let left = self.sectors.checked_sub(sector).ok_or(Status::IoError)?;
        if !len.is_multiple_of(SECTOR) || len / SECTOR > left {
            return Err(Status::IoError);
        }
        Ok(sector * SECTOR)
    }
}

impl VirtioDevice for Device {
    fn features(&self) -> u64 {
        FLUSH
    }

    fn config(&self) -> Vec<u8> {
        let mut config = self.sectors.to_le_bytes().to_vec();
        config.resize(CONFIG, 0);
        config
    }

    /// A request may be executed twice, so it survives a kill of this process.
    fn resumable(&self) -> bool {
        true
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        let answer = &request.chain.writable;
        let Some(data) = answer.len().checked_sub(1) else {
            return Outcome::Done(0); // there is no room for a status
        };
        let (written, status) = match self.execute(memory, request) {
            Ok(written) => (written.min(data), Status::Ok),
            Err(status) => (0, status),
        };
        // The used length covers all bytes before the status, so they have to be written.
        let zeroed = answer.zero(memory, written, data - written);
        match zeroed.and_then(|()| answer.write(memory, data, &[status as u8])) {
            Ok(()) => Outcome::Done(answer.len() as u32),
            // The buffer is not in guest memory.
            Err(_) => Outcome::Done(0),
        }
    }
}

impl From<BufferError> for Status {
    fn from(_: BufferError) -> Self {
        Self::IoError
    }
}

impl From<std::io::Error> for Status {
    fn from(_: std::io::Error) -> Self {
        Self::IoError
    }
}
