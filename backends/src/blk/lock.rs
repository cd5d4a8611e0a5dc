//! Who else uses an image.
//!
//! QEMU declares its own use of a file, and the uses that others must not make, by
//! open-file-description locks on single bytes (`block/file-posix.c` there). An image is guarded
//! the same way here, so that either sees the other. The bytes carry shared locks only: it
//! matters which of them are held. `flock` is taken as well, for programs that use that.
//!
//! All locks end with the process, however it ends.

#![allow(unsafe_code)]

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::AsRawFd;

/// The lock of a permission in use: this byte plus the permission's number.
const USED: i64 = 100;
/// The lock of a permission that others must not use.
const DENIED: i64 = 200;

/// QEMU's numbers of permissions.
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;

/// The purpose that an image is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Others may read it too.
    Read,
    /// Nobody else may use it.
    Write,
}

/// The outcome of asking for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// It is ours, as far as others ask.
    Taken,
    /// Another process has it.
    InUse,
}

impl Use {
    fn used(self) -> &'static [i64] {
        match self {
            Use::Read => &[CONSISTENT_READ],
            Use::Write => &[CONSISTENT_READ, WRITE, RESIZE],
        }
    }

    fn denied(self) -> &'static [i64] {
        &[WRITE, RESIZE]
    }
}

/// Takes `file` for `purpose`. A file system without locks guards nothing, which is no error.
pub fn take(file: &File, purpose: Use) -> Lock {
    match lock_bytes(file, purpose).and_then(|lock| match lock {
        Lock::Taken => lock_whole(file, purpose),
        Lock::InUse => Ok(Lock::InUse),
    }) {
        Ok(lock) => lock,
        Err(error) => {
            tracing::debug!(%error, "the image cannot be locked");
            Lock::Taken
        }
    }
}

fn lock_whole(file: &File, purpose: Use) -> io::Result<Lock> {
    let result = match purpose {
        Use::Read => file.try_lock_shared(),
        Use::Write => file.try_lock(),
    };
    match result {
        Ok(()) => Ok(Lock::Taken),
        Err(TryLockError::WouldBlock) => Ok(Lock::InUse),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Announces first and checks then: of two that come at once at least one sees the other.
fn lock_bytes(file: &File, purpose: Use) -> io::Result<Lock> {
    let announced = (purpose.used().iter().map(|p| USED + p))
        .chain(purpose.denied().iter().map(|p| DENIED + p));
    for byte in announced {
        if !share(file, byte)? {
            return Ok(Lock::InUse);
        }
    }
    let conflicts = (purpose.used().iter().map(|p| DENIED + p))
        .chain(purpose.denied().iter().map(|p| USED + p));
    for byte in conflicts {
        if is_held_by_another(file, byte)? {
            return Ok(Lock::InUse);
        }
    }
    Ok(Lock::Taken)
}

/// Takes a shared lock on one byte; false if somebody has an exclusive one.
fn share(file: &File, byte: i64) -> io::Result<bool> {
    match ofd_lock(file, libc::F_OFD_SETLK, libc::F_RDLCK, byte) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether an exclusive lock on the byte would meet another's lock.
fn is_held_by_another(file: &File, byte: i64) -> io::Result<bool> {
    let found = ofd_lock(file, libc::F_OFD_GETLK, libc::F_WRLCK, byte)?;
    Ok(found != libc::F_UNLCK)
}

/// One lock request on one byte; returns the kind that F_OFD_GETLK found there, or that was set.
fn ofd_lock(
    file: &File,
    request: libc::c_int,
    kind: libc::c_int,
    byte: i64,
) -> io::Result<libc::c_int> {
    let mut lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open while `file` is borrowed, and both requests take a pointer
    // to a `struct flock`, which `lock` is.
    if unsafe { libc::fcntl(file.as_raw_fd(), request, &mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type.into())
}

#[cfg(test)]
#[path = "lock_test.rs"]
mod tests;
