//! The file or block device behind a virtual disk.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::direct::Alignment;
pub use super::error::ImageError;
use super::geometry::{Geometry, fallocate};
use super::lock::{self, Lock, Use};
use super::named::{Allowed, Gate};
use super::qcow2::Qcow2Image;
use super::stability::Stability;
use crate::iovec::IoVecs;

/// Between looks at an image in use: nobody tells when a lock goes.
const RETRY: Duration = Duration::from_millis(2);

/// How the disk's bytes are kept in the file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// As they are.
    #[default]
    Raw,
    /// QEMU's format.
    Qcow2,
}

/// How an image is to be opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Nothing is written, and other readers are welcome.
    pub read_only: bool,
    /// Its format.
    pub format: Format,
    /// Which files may be opened that its header names.
    pub allowed: Allowed,
    /// All access goes past the page cache.
    pub direct: bool,
    /// The disk's block size in bytes, a power of two; `None` for the file's or device's own.
    pub block_size: Option<u32>,
    /// How long it may still be in use. The kernel finishes the requests of a process that was
    /// killed, and keeps the process's lock until then: only after that may a successor repeat
    /// them.
    pub patience: Duration,
    /// It is neither locked nor is anybody else's lock heeded.
    pub force: bool,
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
    /// It may change while the image is in use.
    sectors: AtomicU64,
    geometry: Geometry,
    read_only: bool,
    can_discard: bool,
    /// The demands of access past the page cache on buffers.
    alignment: Option<Alignment>,
    stability: Stability,
}

impl Image {
    /// Opens and locks a raw image.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, ImageError> {
        let options = Options {
            read_only,
            ..Options::default()
        };
        Image::open_with(path, options)
    }

    /// Opens an image. Bytes after the last whole block are not offered.
    pub fn open_with(path: &Path, options: Options) -> Result<Self, ImageError> {
        let read_only = options.read_only;
        let mut file = open_file(path, options)?;
        let geometry = Geometry::of(&mut file).map_err(|source| ImageError::Examine {
            path: path.to_owned(),
            source,
        })?;
        let mut geometry = geometry.ok_or_else(|| ImageError::Kind(path.to_owned()))?;
        if let Some(asked) = options.block_size {
            geometry = geometry.with_blocks(asked).ok_or(ImageError::BlockSize {
                path: path.to_owned(),
                asked,
                least: geometry.logical_block,
            })?;
        }
        let can_discard =
            !read_only && options.format == Format::Raw && geometry.can_discard(&file);
        let alignment = options
            .direct
            .then(|| align(&file, options.format, geometry.logical_block))
            .transpose()
            .map_err(|source| ImageError::Direct {
                path: path.to_owned(),
                source,
            })?;
        let (data, len) = match options.format {
            Format::Raw => (Data::Raw(file), geometry.len),
            Format::Qcow2 => {
                let image = open_qcow2(file, path, options).map_err(|source| {
                    let path = path.to_owned();
                    ImageError::Qcow2 { path, source }
                })?;
                let len = image.size();
                (Data::Qcow2(image), len)
            }
        };
        let block = u64::from(geometry.logical_block);
        if len < block {
            return Err(ImageError::TooSmall {
                path: path.to_owned(),
                len,
                block,
            });
        }
        if len % block != 0 {
            tracing::warn!(
                path = %path.display(), bytes = len % block,
                "the image's length is not a multiple of {block}; the last bytes are not offered"
            );
        }
        Ok(Image {
            data,
            sectors: AtomicU64::new(geometry.whole_sectors(len)),
            geometry,
            read_only,
            can_discard,
            alignment,
            stability: Stability::default(),
        })
    }

    /// Capacity in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors.load(Ordering::Relaxed)
    }

    /// Whether the disk has the size of its file or device, which may change.
    pub fn can_change_size(&self) -> bool {
        matches!(self.data, Data::Raw(_))
    }

    /// Takes on the size that the file or device has now: the new capacity, if it is another one.
    /// What is too small for a disk is left out of account.
    pub fn update_size(&self) -> io::Result<Option<u64>> {
        let Data::Raw(file) = &self.data else {
            return Ok(None);
        };
        let len = self.geometry.current_len(file)?;
        let sectors = self.geometry.whole_sectors(len);
        let is_other = sectors > 0 && self.sectors.swap(sectors, Ordering::Relaxed) != sectors;
        Ok(is_other.then_some(sectors))
    }

    /// Logical block size in bytes.
    pub fn block_size(&self) -> u32 {
        self.geometry.logical_block
    }

    /// Logical blocks in a physical one, as an exponent of two.
    pub fn physical_block_exp(&self) -> u8 {
        self.geometry.physical_block_exp()
    }

    /// Whether writes are refused.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Whether space can be given back at all.
    pub fn can_discard(&self) -> bool {
        self.can_discard
    }

    /// The demands on buffers, if access goes past the page cache.
    pub fn alignment(&self) -> Option<Alignment> {
        self.alignment
    }

    /// The file whose bytes are the disk's, if the image is raw.
    pub fn file(&self) -> Option<&File> {
        match &self.data {
            Data::Raw(file) => Some(file),
            Data::Qcow2(_) => None,
        }
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
                image.flush(false)?;
                if durable { self.flush() } else { Ok(()) }
            }
        }
    }

    /// Brings all completed writes to stable storage.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        self.stability.bring(|| match &self.data {
            Data::Raw(file) => file.sync_data(),
            Data::Qcow2(image) => image.flush(true),
        })
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
    /// For access past the page cache.
    #[repr(align(4096))]
    struct Aligned([u8; 1 << 16]);
    static ZEROES: Aligned = Aligned([0; 1 << 16]);
    let zeroes = &ZEROES.0;
    while len > 0 {
        let n = len.min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..n as usize], offset)?;
        offset += n;
        len -= n;
    }
    Ok(())
}

/// Opens and locks the file as soon as it is free, or within the patience of `options`.
fn open_file(path: &Path, options: Options) -> Result<File, ImageError> {
    let deadline = Instant::now() + options.patience;
    loop {
        match try_open_file(path, options) {
            Err(ImageError::InUse(_)) if Instant::now() < deadline => thread::sleep(RETRY),
            result => return result,
        }
    }
}

/// Opens and locks the file. A block device that is to be written is opened exclusively, which
/// the kernel refuses while a file system on it is mounted.
fn try_open_file(path: &Path, options: Options) -> Result<File, ImageError> {
    let is_device = std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device());
    let is_exclusive = is_device && !options.read_only && !options.force;
    let file = OpenOptions::new()
        .read(true)
        .write(!options.read_only)
        .custom_flags(if is_exclusive { libc::O_EXCL } else { 0 })
        .open(path)
        .map_err(|source| match source.kind() {
            io::ErrorKind::ResourceBusy => ImageError::InUse(path.to_owned()),
            _ => ImageError::Open {
                path: path.to_owned(),
                mode: match options.read_only {
                    true => "reading",
                    false => "reading and writing",
                },
                source,
            },
        })?;
    let purpose = match options.read_only {
        true => Use::Read,
        false => Use::Write,
    };
    if !options.force && lock::take(&file, purpose) == Lock::InUse {
        return Err(ImageError::InUse(path.to_owned()));
    }
    Ok(file)
}

/// Makes access to a file go past the page cache. The disk's blocks have `block` bytes.
fn align(file: &File, format: Format, block: u32) -> io::Result<Alignment> {
    if format != Format::Raw {
        return Err(io::Error::other("only raw images are accessed so"));
    }
    let alignment = Alignment::enable(file)?;
    if alignment.block() > block as usize {
        return Err(io::Error::other(format!(
            "its storage takes pieces of {} bytes only, and the disk's blocks have {block}",
            alignment.block()
        )));
    }
    Ok(alignment)
}

fn open_qcow2(file: File, path: &Path, options: Options) -> io::Result<Qcow2Image> {
    let Options {
        read_only,
        allowed,
        force,
        ..
    } = options;
    let gate = Gate::new(&file, path, read_only, !force, allowed)?;
    Qcow2Image::open(file, path, read_only, gate)
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
    fn a_disk_may_have_larger_blocks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(4096 + 3584).unwrap();
        let options = |block_size| Options {
            block_size,
            ..Options::default()
        };
        let image = Image::open_with(file.path(), options(Some(4096))).unwrap();
        assert_eq!((image.sectors(), image.block_size()), (8, 4096));
        assert_eq!(image.physical_block_exp(), 0);
        file.as_file().set_len(3 * 4096 + 512).unwrap();
        assert_eq!(image.update_size().unwrap(), Some(24));
        drop(image);
        file.as_file().set_len(4095).unwrap();
        assert!(matches!(
            Image::open_with(file.path(), options(Some(4096))),
            Err(ImageError::TooSmall { block: 4096, .. })
        ));
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(511).unwrap();
        assert!(matches!(
            Image::open(file.path(), false),
            Err(ImageError::TooSmall {
                len: 511,
                block: 512,
                ..
            })
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
