//! Standard streams that never block.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat};

/// A nonblocking descriptor of a standard stream.
pub struct Stdio {
    fd: OwnedFd,
    /// Flags that others share and get back at the end.
    borrowed_flags: Option<OFlags>,
}

impl Stdio {
    /// Opens the file behind `fd` once more where it can: the flags of `fd` itself are
    /// shared with the shell. A regular file is not, as it never blocks, and its
    /// offset is shared too.
    pub fn nonblocking(fd: BorrowedFd<'_>, access: OFlags) -> io::Result<Self> {
        let is_file = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::RegularFile;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let reopened = (!is_file).then(|| rustix::fs::open(path, flags, Mode::empty()));
        if let Some(Ok(fd)) = reopened {
            return Ok(Self {
                fd,
                borrowed_flags: None,
            });
        }
        // A socket, or another user's terminal.
        let fd = fd.try_clone_to_owned()?;
        let flags = fcntl_getfl(&fd)?;
        let borrowed_flags = (!is_file && !flags.contains(OFlags::NONBLOCK)).then_some(flags);
        if borrowed_flags.is_some() {
            fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
        }
        Ok(Self { fd, borrowed_flags })
    }
}

impl Drop for Stdio {
    fn drop(&mut self) {
        if let Some(flags) = self.borrowed_flags {
            let _ = fcntl_setfl(&self.fd, flags);
        }
    }
}

impl AsFd for Stdio {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn blocks(fd: impl AsFd) -> bool {
        !fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK)
    }

    #[test]
    fn a_pipe_keeps_its_flags() {
        let (_reader, writer) = io::pipe().unwrap();
        let stdio = Stdio::nonblocking(writer.as_fd(), OFlags::WRONLY).unwrap();
        assert!(!blocks(&stdio));
        assert!(blocks(&writer));
    }

    #[test]
    fn a_socket_gets_its_flags_back() {
        let (socket, _other) = UnixStream::pair().unwrap();
        let stdio = Stdio::nonblocking(socket.as_fd(), OFlags::WRONLY).unwrap();
        let again = Stdio::nonblocking(socket.as_fd(), OFlags::RDONLY).unwrap();
        assert!(!blocks(&socket));
        drop(again);
        drop(stdio);
        assert!(blocks(&socket));
    }

    #[test]
    fn who_writes_into_the_same_file_later_writes_behind() {
        let mut file = tempfile::tempfile().unwrap();
        let stdio = Stdio::nonblocking(file.as_fd(), OFlags::WRONLY).unwrap();
        rustix::io::write(&stdio, b"first ").unwrap();
        file.write_all(b"second").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "first second");
    }
}
