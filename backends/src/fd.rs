//! Precautions with file descriptors that a peer has sent.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;

/// Makes a pipe or socket nonblocking, so that a peer that never reads cannot block the writer.
///
/// An eventfd is left alone: its flags are shared with the peer, which may count on blocking
/// reads, and writing 1 blocks only after 2^64 - 2 unread events. user-mode-linux passes pipes;
/// of a pipe each end has flags of its own.
pub fn never_block_on_stream(file: &File) -> io::Result<()> {
    let kind = file.metadata()?.file_type();
    if !kind.is_fifo() && !kind.is_socket() {
        return Ok(());
    }
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open for as long as `file` is borrowed; F_GETFL takes no pointer.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; F_SETFL takes an integer.
    if unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
