//! Where a dump goes: a file, in which zeros are holes, or a pipe.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Most zeros that are written at once where there can be no holes.
const ZEROS: usize = 64 << 10;

/// Only its owner may read the guest's memory.
const MODE: u32 = 0o600;

/// It is written from the beginning to the end.
#[derive(Debug)]
pub enum Output {
    File(File),
    Pipe {
        file: File,
        /// How much has been written.
        at: u64,
    },
}

impl Output {
    /// A new file, or one that is there and loses what it has.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .mode(MODE)
            // Not until somebody reads it, if it is a pipe.
            .custom_flags(libc::O_NONBLOCK)
            .open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is there, but is not a regular file",
            ));
        }
        // Of a file that is there, its readers would have the guest's memory.
        file.set_permissions(Permissions::from_mode(MODE))?;
        Self::to(file)
    }

    /// A file of whatever kind, which is open for writing.
    pub fn to(file: File) -> io::Result<Self> {
        match file.metadata()?.is_file() {
            true => {
                file.set_len(0)?;
                Ok(Self::File(file))
            }
            false => Ok(Self::Pipe { file, at: 0 }),
        }
    }

    /// The file, if everything in it can be written at any time.
    pub fn into_file(self) -> io::Result<File> {
        match self {
            Self::File(file) => Ok(file),
            Self::Pipe { .. } => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a compressed dump cannot be written to a pipe",
            )),
        }
    }

    /// Writes at `offset`, which is not before the end of what was written last.
    pub fn put(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(bytes, offset),
            Self::Pipe { file, at } => {
                write_zeros(file, offset - *at)?;
                file.write_all(bytes)?;
                *at = offset + bytes.len() as u64;
                Ok(())
            }
        }
    }

    /// Makes it `len` bytes long.
    pub fn finish(self, len: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.set_len(len),
            Self::Pipe { mut file, at } => write_zeros(&mut file, len - at),
        }
    }
}

fn write_zeros(file: &mut File, count: u64) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let len = left.min(ZEROS as u64);
        file.write_all(&[0; ZEROS][..len as usize])?;
        left -= len;
    }
    Ok(())
}
