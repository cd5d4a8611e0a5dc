//! Files as they were when the machine was made. A reboot needs them again; by then
//! the user's files may have been replaced, removed, or rewritten in part.
//!
//! A boot does not wait for the copy: a file is read in place until its copy is complete.

use std::fs::{File, Metadata};
use std::io::{self, Read, Seek};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek, sendfile};
use rustix::io::Errno;

/// Most bytes copied at once.
const PIECE: u64 = 256 << 10;

/// A file, or the parts of it that are needed.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    /// It stays open, so that its name may come to mean another file.
    file: File,
    stamp: Stamp,
    parts: Vec<Range<u64>>,
    /// A private copy of these parts, at their places.
    copy: OnceLock<File>,
    len: u64,
}

/// The signs of another writer of the file: its size and the time of the last write, in
/// seconds and nanoseconds. Removing or replacing the file changes neither.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    len: u64,
    modified: (i64, i64),
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot open it")]
    Open(#[source] io::Error),
    #[error("cannot read it")]
    Read(#[source] io::Error),
    #[error("it has {0} bytes")]
    TooLarge(u64),
    #[error("it has no end within {0} bytes")]
    Endless(u64),
}

impl Kept {
    /// All of the file at `path`, of whatever kind it is, up to `limit` bytes.
    pub fn whole(path: &Path, limit: u64) -> Result<Self, Error> {
        let (file, metadata) = open(path)?;
        if !is_plain(&metadata) {
            return Self::read_whole(path, file, &metadata, limit);
        }
        match metadata.len() {
            len if len > limit => Err(Error::TooLarge(len)),
            len => {
                let all = std::iter::once(0..len).collect();
                Ok(Self::new(path, file, &metadata, all))
            }
        }
    }

    /// The same, but only those parts of a regular file that `parts` finds in it, unless
    /// they have more than `limit` bytes.
    pub fn parts(
        path: &Path,
        limit: u64,
        parts: impl FnOnce(&File) -> io::Result<Vec<Range<u64>>>,
    ) -> Result<Self, Error> {
        let (file, metadata) = open(path)?;
        if !is_plain(&metadata) {
            return Self::read_whole(path, file, &metadata, limit);
        }
        let len = metadata.len();
        let in_file = |part: Range<u64>| part.start.min(len)..part.end.min(len);
        let mut parts = parts(&file).map_err(Error::Read)?;
        parts = parts.into_iter().map(in_file).collect();
        let total = parts.iter().map(|part| part.end.saturating_sub(part.start));
        if total.fold(0, u64::saturating_add) > limit {
            parts.clear();
        }
        Ok(Self::new(path, file, &metadata, parts))
    }

    fn new(path: &Path, file: File, metadata: &Metadata, parts: Vec<Range<u64>>) -> Self {
        Self {
            path: path.to_owned(),
            file,
            stamp: stamp(metadata),
            parts,
            copy: OnceLock::new(),
            len: metadata.len(),
        }
    }

    /// A pipe, or a file in /proc, is copied at once: it may be readable only once.
    fn read_whole(path: &Path, file: File, metadata: &Metadata, limit: u64) -> Result<Self, Error> {
        let mut copy = private_file().map_err(Error::Read)?;
        let len = io::copy(&mut (&file).take(limit + 1), &mut copy).map_err(Error::Read)?;
        if len > limit {
            return Err(Error::Endless(limit));
        }
        Ok(Self {
            copy: copy.into(),
            len,
            ..Self::new(path, file, metadata, Vec::new())
        })
    }

    /// Makes the copy, unless there is one.
    ///
    /// # Errors
    /// There is no room for it, or the file has changed.
    pub fn keep(&self) -> io::Result<()> {
        if self.copy.get().is_some() {
            return Ok(());
        }
        let copy = private_file()?;
        for part in &self.parts {
            copy_part(&self.file, &copy, part.clone())?;
        }
        self.expect_unchanged()?;
        self.copy.get_or_init(|| copy);
        Ok(())
    }

    /// The path that the user gave.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the whole file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// A descriptor at the start of the kept contents. All descriptors share one file
    /// offset.
    ///
    /// # Errors
    /// The file was changed before it could be kept.
    pub fn open(&self) -> io::Result<File> {
        let mut file = match self.copy.get() {
            Some(copy) => copy.try_clone()?,
            None => {
                self.expect_unchanged()?;
                self.file.try_clone()?
            }
        };
        file.rewind()?;
        Ok(file)
    }

    fn expect_unchanged(&self) -> io::Result<()> {
        if stamp(&self.file.metadata()?) == self.stamp {
            Ok(())
        } else {
            Err(io::Error::other("it was changed before a copy was made"))
        }
    }
}

fn open(path: &Path) -> Result<(File, Metadata), Error> {
    let file = File::open(path).map_err(Error::Open)?;
    let metadata = file.metadata().map_err(Error::Open)?;
    if metadata.is_dir() {
        return Err(Error::Open(io::ErrorKind::IsADirectory.into()));
    }
    Ok((file, metadata))
}

/// Whether the file has a length and keeps its contents. A file in /proc has length 0.
fn is_plain(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.len() > 0
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp {
        len: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
    }
}

/// Leaves the offset of `from` alone, which others use.
fn copy_part(from: &File, to: &File, part: Range<u64>) -> io::Result<()> {
    let mut at = part.start;
    while at < part.end {
        let len = PIECE.min(part.end - at) as usize;
        seek(to, SeekFrom::Start(at))?;
        // From page to page, without a buffer in between.
        match sendfile(to, from, Some(&mut at), len) {
            Ok(0) => break,
            // Not every kind of file can be sent.
            Err(Errno::INVAL) => {
                let bytes = read_at(from, at, len)?;
                if bytes.is_empty() {
                    break;
                }
                to.write_all_at(&bytes, at)?;
                at += bytes.len() as u64;
            }
            Err(Errno::INTR) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        // The guest may boot on the same processor. It would otherwise get it back at a tick, up
        // to 4 ms later.
        thread::yield_now();
    }
    Ok(())
}

/// A file without a name: on disk, so that it costs no memory, where that is possible.
fn private_file() -> io::Result<File> {
    let asked = std::env::var_os("TMPDIR").map(PathBuf::from);
    // /tmp is memory on many hosts (file-hierarchy(7)).
    let dir = asked.unwrap_or_else(|| "/var/tmp".into());
    tempfile::tempfile_in(dir)
        .or_else(|_| Ok(memfd_create("outboard-boot", MemfdFlags::CLOEXEC)?.into()))
}

/// Up to `len` bytes at `offset`; fewer where the file ends.
pub fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match file.read_at(&mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn contents(kept: &Kept) -> Vec<u8> {
        let mut bytes = Vec::new();
        kept.open().unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_file_that_is_kept_stays_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        let whole = Kept::whole(&path, 10).unwrap();
        let parts = Kept::parts(&path, 4, |_| Ok(vec![1..3, 8..90])).unwrap();
        assert_eq!(contents(&whole), b"0123456789");
        whole.keep().unwrap();
        parts.keep().unwrap();
        std::fs::write(&path, "other").unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((whole.len(), parts.len()), (10, 10));
        assert_eq!(contents(&whole), b"0123456789");
        assert_eq!(contents(&whole), b"0123456789", "again");
        assert_eq!(contents(&parts), b"\x0012\0\0\0\0\089");
        parts.keep().unwrap();
    }

    #[test]
    fn before_it_is_kept_it_may_be_replaced_but_not_changed() {
        let dir = tempfile::tempdir().unwrap();
        let [path, new] = ["file", "new"].map(|name| dir.path().join(name));
        std::fs::write(&path, "0123456789").unwrap();
        std::fs::write(&new, "new").unwrap();
        let [replaced, changed] = [&path, &new].map(|path| Kept::whole(path, 10).unwrap());
        std::fs::rename(&new, &path).unwrap();
        assert_eq!(contents(&replaced), b"0123456789");
        replaced.keep().unwrap();
        assert_eq!(contents(&replaced), b"0123456789");
        assert_eq!(contents(&changed), b"new");
        std::fs::write(&path, "ne").unwrap();
        assert!(changed.open().is_err());
        assert!(changed.keep().is_err());
    }

    #[test]
    fn more_than_can_be_used_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert!(matches!(Kept::whole(&path, 9), Err(Error::TooLarge(10))));
        let parts = Kept::parts(&path, 4, |_| Ok(vec![0..3, 3..5])).unwrap();
        parts.keep().unwrap();
        assert_eq!(parts.len(), 10);
        assert_eq!(contents(&parts), b"");
    }

    #[test]
    fn what_is_no_regular_file_is_read_to_its_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"piped").unwrap();
        drop(writer);
        use std::os::fd::AsRawFd;
        let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
        let kept = Kept::parts(Path::new(&path), 10, |_| unreachable!()).unwrap();
        assert_eq!((kept.len(), contents(&kept)), (5, b"piped".to_vec()));

        let stat = Kept::whole(Path::new("/proc/self/stat"), 1 << 20).unwrap();
        assert_eq!(contents(&stat).len() as u64, stat.len());
        assert!(stat.len() > 10);

        let endless = Kept::whole(Path::new("/dev/zero"), 1 << 20);
        assert!(matches!(endless, Err(Error::Endless(_))));
        let directory = Kept::whole(Path::new("/"), 1 << 20);
        assert!(matches!(directory, Err(Error::Open(_))));
    }
}
