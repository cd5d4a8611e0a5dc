//! The shape of a file or block device that holds a disk: its length, its blocks, and whether
//! its space can be given back.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::SECTOR_SIZE;

/// `_IO(0x12, 123)`: physical block size as an `unsigned int`.
const BLKPBSZGET: libc::Ioctl = 0x127b;

/// Lengths and sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Length of the file or device.
    pub len: u64,
    /// The smallest piece that can be read or written.
    pub logical_block: u32,
    physical_block: u32,
    is_device: bool,
}

impl Geometry {
    /// The same for a disk of larger blocks, if they can be read and written.
    pub fn with_blocks(self, size: u32) -> Option<Self> {
        (size >= self.logical_block).then_some(Geometry {
            logical_block: size,
            ..self
        })
    }

    /// The sectors of all whole blocks in `len` bytes.
    pub fn whole_sectors(&self, len: u64) -> u64 {
        let block = u64::from(self.logical_block);
        len / block * (block / SECTOR_SIZE)
    }

    /// The length now of a file or device of this shape.
    pub fn current_len(&self, mut file: &File) -> io::Result<u64> {
        match self.is_device {
            true => file.seek(SeekFrom::End(0)),
            false => Ok(file.metadata()?.len()),
        }
    }

    /// Examines an open file; `None` if it is neither a regular file nor a block device.
    pub fn of(file: &mut File) -> io::Result<Option<Self>> {
        let metadata = file.metadata()?;
        if metadata.is_file() {
            let physical = u32::try_from(metadata.blksize()).unwrap_or(4096);
            return Ok(Some(Geometry {
                len: metadata.len(),
                logical_block: SECTOR_SIZE as u32,
                physical_block: physical.clamp(512, 4096),
                is_device: false,
            }));
        }
        if !metadata.file_type().is_block_device() {
            return Ok(None);
        }
        Ok(Some(Geometry {
            len: file.seek(SeekFrom::End(0))?,
            logical_block: block_size(file, libc::BLKSSZGET)?,
            physical_block: block_size(file, BLKPBSZGET)?,
            is_device: true,
        }))
    }

    /// Logical blocks in a physical one, as an exponent of two.
    pub fn physical_block_exp(&self) -> u8 {
        (self.physical_block / self.logical_block).max(1).ilog2() as u8
    }

    /// Whether `file`, of this shape and open for writing, can give space back.
    pub fn can_discard(&self, file: &File) -> bool {
        if self.is_device {
            return file.metadata().is_ok_and(|m| has_discard(m.rdev()));
        }
        // A file has no data behind its end that could be lost.
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        fallocate(file, mode, self.len, u64::from(self.physical_block)).is_ok()
    }
}

/// Whether the block device discards (Linux `Documentation/ABI/stable/sysfs-block`). A partition
/// has its limits from the disk that it is on.
fn has_discard(device: libc::dev_t) -> bool {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let directory = format!("/sys/dev/block/{major}:{minor}");
    ["queue", "../queue"].iter().any(|queue| {
        let max = std::fs::read_to_string(format!("{directory}/{queue}/discard_max_bytes"));
        max.is_ok_and(|max| max.trim() != "0")
    })
}

/// One of the block layer's ioctls that answer with an `int`.
fn block_size(file: &File, request: libc::Ioctl) -> io::Result<u32> {
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

/// fallocate(2), again when a signal has interrupted it.
pub fn fallocate(file: &File, mode: libc::c_int, offset: u64, len: u64) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    use super::*;

    #[test]
    fn a_file_that_takes_no_holes_has_no_discard() {
        let mut file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let geometry = Geometry::of(&mut file).unwrap().unwrap();
        assert!(geometry.can_discard(&file));
        assert_eq!(file.metadata().unwrap().len(), 4096);
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let sealed = File::from(memfd_create("sealed", flags).unwrap());
        sealed.set_len(4096).unwrap();
        fcntl_add_seals(&sealed, SealFlags::WRITE).unwrap();
        assert!(!geometry.can_discard(&sealed));
    }

    #[test]
    fn physical_blocks_are_counted_in_logical_ones() {
        let shape = |physical_block| Geometry {
            len: 0,
            logical_block: 512,
            physical_block,
            is_device: false,
        };
        assert_eq!(shape(4096).physical_block_exp(), 3);
        assert_eq!(shape(512).physical_block_exp(), 0);
        let larger = shape(4096).with_blocks(4096).unwrap();
        assert_eq!(larger.physical_block_exp(), 0);
        assert_eq!(larger.with_blocks(512), None);
    }
}
