//! An image in QEMU's qcow2 format, through the `imago` crate.
//!
//! A write is completed only when the format's own tables are with the kernel too: a backend that
//! is killed then loses nothing that the guest believes written.

use std::fs::File;
use std::io;
use std::path::Path;

use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{FormatAccess, FormatDriverBuilder, StorageOpenOptions};

use super::named::Gate;

/// An open image, with the files that its header names.
#[derive(Debug)]
pub struct Qcow2Image {
    access: FormatAccess<Storage>,
}

impl Qcow2Image {
    /// The image in `file`, which was opened at `path`; `gate` opens the files that its header
    /// names.
    pub fn open(file: File, path: &Path, read_only: bool, gate: Gate) -> io::Result<Self> {
        let options = StorageOpenOptions::new().filename(path).write(!read_only);
        let storage = Storage::from_open_file(file, options)?;
        let image = Qcow2::<Storage>::builder(storage)
            .write(!read_only)
            .open(gate)?;
        Ok(Qcow2Image {
            access: FormatAccess::new(image),
        })
    }

    /// Size of the disk in bytes.
    pub fn size(&self) -> u64 {
        self.access.size()
    }

    /// Fills `bytes` from `offset` on. To read beyond the end is an error.
    pub fn read(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        self.access.read(bytes, offset)
    }

    /// Writes `bytes` from `offset` on.
    pub fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.access.write(bytes, offset)
    }

    /// Makes a range read as zeroes.
    pub fn write_zeroes(&self, offset: u64, len: u64) -> io::Result<()> {
        self.access.write_zeroes(offset, len)
    }

    /// Brings the format's tables to the kernel; with `durable` everything to stable storage.
    pub fn flush(&self, durable: bool) -> io::Result<()> {
        self.access.flush()?;
        if durable { self.access.sync() } else { Ok(()) }
    }
}
