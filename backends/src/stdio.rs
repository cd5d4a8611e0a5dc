//! Streams that never make anybody wait.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};

/// A nonblocking descriptor of the file that `fd` is open on.
///
/// The flags of `fd` are shared with the shell and must stay as they are, so the file is
/// opened once more. Two kinds are not: a socket cannot be, and nobody else cares for its
/// flags; a regular file never blocks, and its offset is shared too.
pub(crate) fn nonblocking(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<File> {
    if FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile {
        return Ok(fd.try_clone_to_owned()?.into());
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => Ok(file.into()),
        Err(_) => {
            let copy = fd.try_clone_to_owned()?;
            fcntl_setfl(&copy, fcntl_getfl(&copy)? | OFlags::NONBLOCK)?;
            Ok(copy.into())
        }
    }
}

/// Opens a file for output, to be made or cut; also a FIFO, whose reader may come later.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let is_fifo = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    // Open for writing alone, it would have to have a reader by now (fifo(7)).
    let access = if is_fifo {
        OFlags::RDWR
    } else {
        OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC
    };
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::from_raw_mode(0o666))?.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_pipe_is_opened_once_more_and_keeps_its_flags() {
        let (reader, writer) = io::pipe().unwrap();
        let mut copy = nonblocking(writer.as_fd(), OFlags::WRONLY).unwrap();
        assert!(!fcntl_getfl(&writer).unwrap().contains(OFlags::NONBLOCK));
        let full = loop {
            if let Err(error) = copy.write(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(reader);
    }

    #[test]
    fn who_writes_into_the_same_file_later_writes_behind() {
        let mut file = tempfile::tempfile().unwrap();
        let mut copy = nonblocking(file.as_fd(), OFlags::WRONLY).unwrap();
        copy.write_all(b"first ").unwrap();
        file.write_all(b"second").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second");
    }
}
