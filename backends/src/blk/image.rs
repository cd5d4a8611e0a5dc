//! The file or block device behind a virtual disk.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::SECTOR_SIZE;
use super::qcow2::Qcow2Image;
use crate::iovec::IoVecs;

/// Why an image cannot be used. The user's doing, or the host's.
#[derive(Debug, Error)]
pub enum ImageError {
    /// It cannot be opened.
    #[error("image {path} cannot be opened for {mode}")]
    Open {
        /// The path asked for.
        path: PathBuf,
        /// Reading, or reading and writing.
        mode: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a character device.
    #[error("image {0} is neither a regular file nor a block device")]
    Kind(PathBuf),
    /// Its size or geometry cannot be found out.
    #[error("image {path} cannot be examined")]
    Examine {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing to offer.
    #[error("image {path} has {len} bytes; a disk needs at least one sector of {SECTOR_SIZE}")]
    TooSmall {
        /// The path asked for.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// Not what it should be.
    #[error("image {path} cannot be used as qcow2; see: qemu-img check {path}")]
    Qcow2 {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Two writers would destroy it.
    #[error("image {0} is in use by another process; stop that one, or open it --readonly in both")]
    InUse(PathBuf),
}

/// How the disk's bytes are kept in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As they are.
    #[default]
    Raw,
    /// QEMU's format, with backing files if the image has them.
    Qcow2,
}

#[derive(Debug)]
enum Data {
    Raw(File),
    Qcow2(Qcow2Image),
}

/// An open image: a number of sectors to read and write.
#[derive(Debug)]
pub struct Image {
    data: Data,
    sectors: u64,
    block_size: u32,
    physical_block_exp: u8,
    read_only: bool,
}

impl Image {
    /// Opens and locks a raw image. Bytes after the last whole sector are not offered.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, ImageError> {
        Image::open_as(path, read_only, Format::Raw)
    }

    /// The same in any format.
    pub fn open_as(path: &Path, read_only: bool, format: Format) -> Result<Self, ImageError> {
        let mode = if read_only {
            "reading"
        } else {
            "reading and writing"
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .open(path)
            .map_err(|source| ImageError::Open {
                path: path.to_owned(),
                mode,
                source,
            })?;
        lock(&file, read_only, path)?;
        let (len, logical, physical) = geometry(&mut file, path)?;
        let (data, len) = match format {
            Format::Raw => (Data::Raw(file), len),
            Format::Qcow2 => {
                let path = path.to_owned();
                let image = Qcow2Image::open(file, &path, read_only)
                    .map_err(|source| ImageError::Qcow2 { path, source })?;
                let len = image.size();
                (Data::Qcow2(image), len)
            }
        };
        if len < SECTOR_SIZE {
            return Err(ImageError::TooSmall {
                path: path.to_owned(),
                len,
            });
        }
        if len % SECTOR_SIZE != 0 {
            tracing::warn!(
                path = %path.display(), bytes = len % SECTOR_SIZE,
                "the image's length is not a multiple of 512; the last bytes are not offered"
            );
        }
        let ratio = (physical / logical).max(1);
        Ok(Image {
            data,
            sectors: len / SECTOR_SIZE,
            block_size: logical,
            physical_block_exp: ratio.ilog2() as u8,
            read_only,
        })
    }

    /// Capacity in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Logical block size in bytes.
    pub fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Logical blocks in a physical one, as an exponent of two.
    pub fn physical_block_exp(&self) -> u8 {
        self.physical_block_exp
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether space can be given back at all.
    pub fn can_discard(&self) -> bool {
        !self.read_only && matches!(self.data, Data::Raw(_))
    }

    /// Fills `buffers` from byte `offset` on.
    pub fn read(&self, buffers: IoVecs<'_, '_>, offset: u64) -> io::Result<()> {
        match &self.data {
            Data::Raw(file) => buffers.read_exact_at(file.as_fd(), offset),
            Data::Qcow2(image) => buffers.fill_with(offset, |bytes, at| image.read(bytes, at)),
        }
    }

    /// Writes `buffers` from byte `offset` on; with `durable` to stable storage.
    pub fn write(&self, buffers: IoVecs<'_, '_>, offset: u64, durable: bool) -> io::Result<()> {
        match &self.data {
            Data::Raw(file) => buffers.write_all_at(file.as_fd(), offset, durable),
            Data::Qcow2(image) => {
                buffers.drain_with(offset, |bytes, at| image.write(bytes, at))?;
                image.flush(durable)
            }
        }
    }

    /// Brings all completed writes to stable storage.
    pub fn flush(&self) -> io::Result<()> {
        match &self.data {
            _ if self.read_only => Ok(()),
            Data::Raw(file) => file.sync_data(),
            Data::Qcow2(image) => image.flush(true),
        }
    }

    /// Gives the space of a range back. `Unsupported` where the file system or format cannot.
    pub fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        match &self.data {
            Data::Raw(file) => fallocate(file, mode, offset, len),
            Data::Qcow2(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Makes a range read as zeroes; with `unmap` its space may be given back.
    pub fn write_zeroes(&self, offset: u64, len: u64, unmap: bool) -> io::Result<()> {
        let file = match &self.data {
            Data::Raw(file) => file,
            Data::Qcow2(image) => {
                image.write_zeroes(offset, len)?;
                return image.flush(false);
            }
        };
        let first = if unmap {
            libc::FALLOC_FL_PUNCH_HOLE
        } else {
            libc::FALLOC_FL_ZERO_RANGE
        };
        match fallocate(file, first | libc::FALLOC_FL_KEEP_SIZE, offset, len) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => write_out_zeroes(file, offset, len),
            result => result,
        }
    }
}

fn write_out_zeroes(file: &File, mut offset: u64, mut len: u64) -> io::Result<()> {
    static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
    while len > 0 {
        let n = len.min(ZEROES.len() as u64);
        file.write_all_at(&ZEROES[..n as usize], offset)?;
        offset += n;
        len -= n;
    }
    Ok(())
}

fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
    let at = libc::off64_t::try_from(offset).map_err(io::Error::other)?;
    let len = libc::off64_t::try_from(len).map_err(io::Error::other)?;
    loop {
        // SAFETY: the descriptor is open for as long as `file` lives; the other
        // arguments are plain numbers.
        if unsafe { libc::fallocate64(file.as_raw_fd(), mode, at, len) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Keeps others that ask from writing an image that is in use. The lock ends with the process,
/// however it ends.
fn lock(file: &File, shared: bool, path: &Path) -> Result<(), ImageError> {
    let result = if shared {
        file.try_lock_shared()
    } else {
        file.try_lock()
    };
    match result {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(ImageError::InUse(path.to_owned())),
        Err(TryLockError::Error(error)) => {
            tracing::debug!(%error, "the image cannot be locked");
            Ok(())
        }
    }
}

/// Length, logical and physical block size, all in bytes.
fn geometry(file: &mut File, path: &Path) -> Result<(u64, u32, u32), ImageError> {
    let examine = |source| ImageError::Examine {
        path: path.to_owned(),
        source,
    };
    let metadata = file.metadata().map_err(examine)?;
    if metadata.is_file() {
        let physical = u32::try_from(metadata.blksize()).unwrap_or(4096);
        return Ok((
            metadata.len(),
            SECTOR_SIZE as u32,
            physical.clamp(512, 4096),
        ));
    }
    if !metadata.file_type().is_block_device() {
        return Err(ImageError::Kind(path.to_owned()));
    }
    let len = file.seek(SeekFrom::End(0)).map_err(examine)?;
    let logical = block_ioctl(file, libc::BLKSSZGET).map_err(examine)?;
    let physical = block_ioctl(file, BLKPBSZGET).map_err(examine)?;
    Ok((len, logical, physical))
}

/// `_IO(0x12, 123)`: physical block size as an `unsigned int`.
const BLKPBSZGET: libc::Ioctl = 0x127b;

/// One of the block layer's ioctls that answer with an `int`.
fn block_ioctl(file: &File, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: libc::c_int = 0;
    // SAFETY: the descriptor is open and `value` is the `int` that these requests write.
    if unsafe { libc::ioctl(file.as_raw_fd(), request, &mut value) } < 0 {
        return Err(io::Error::last_os_error());
    }
    u32::try_from(value)
        .ok()
        .filter(|v| v.is_power_of_two() && *v >= 512)
        .ok_or_else(|| io::Error::other(format!("block size {value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_in_use_is_not_opened_for_writing_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1024).unwrap();
        let first = Image::open(file.path(), false).unwrap();
        for read_only in [false, true] {
            let second = Image::open(file.path(), read_only);
            assert!(matches!(second, Err(ImageError::InUse(_))));
        }
        drop(first);
        let _reader = Image::open(file.path(), true).unwrap();
        assert!(Image::open(file.path(), true).is_ok());
        assert!(matches!(
            Image::open(file.path(), false),
            Err(ImageError::InUse(_))
        ));
    }

    #[test]
    fn a_ragged_end_is_not_offered() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3 * 512 + 100).unwrap();
        assert_eq!(Image::open(file.path(), false).unwrap().sectors(), 3);
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(511).unwrap();
        assert!(matches!(
            Image::open(file.path(), false),
            Err(ImageError::TooSmall { len: 511, .. })
        ));
        assert!(matches!(
            Image::open(Path::new("/dev/null"), true),
            Err(ImageError::Kind(_))
        ));
        assert!(matches!(
            Image::open(Path::new("/nonexistent/image"), true),
            Err(ImageError::Open { .. })
        ));
    }

    #[test]
    fn zeroes_are_zeroes_whatever_the_file_system_can() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&[7; 1 << 18], 0).unwrap();
        let image = Image::open(file.path(), false).unwrap();
        image.write_zeroes(4096, 4096, true).unwrap();
        image.write_zeroes(8192, 1000, false).unwrap();
        write_out_zeroes(file.as_file(), 65536, (1 << 16) + 512).unwrap();
        let mut data = vec![0; 1 << 18];
        file.as_file().read_exact_at(&mut data, 0).unwrap();
        let zero =
            |i: usize| (4096..9192).contains(&i) || (65536..65536 + (1 << 16) + 512).contains(&i);
        let wrong = (0..data.len()).find(|&i| (data[i] == 0) != zero(i));
        assert_eq!(wrong, None);
    }
}
