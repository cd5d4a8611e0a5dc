//! The symbol file, served to gdb: which one it is, and its bytes.
//!
//! `gdb -ex 'target remote …'` alone then has symbols: gdb asks for the name of
//! the executable (`qXfer:exec-file:read`) and reads it through Host I/O packets
//! (`vFile`). Nothing else of the host's files can be opened.

use gdbstub::common::Pid;
use gdbstub::target::ext::exec_file::ExecFile;
use gdbstub::target::ext::host_io::{
    FsKind, HostIo, HostIoClose, HostIoCloseOps, HostIoErrno, HostIoError, HostIoFstat,
    HostIoFstatOps, HostIoOpen, HostIoOpenFlags, HostIoOpenMode, HostIoOpenOps, HostIoPread,
    HostIoPreadOps, HostIoResult, HostIoSetfs, HostIoSetfsOps, HostIoStat,
};
use gdbstub::target::{TargetError, TargetResult};

use super::Session;
use super::base::errno;
use crate::linux::copy_from;

/// The descriptor of the one file there is. It has no position, so that gdb may
/// open it as often as it likes.
const FD: u32 = 3;

/// Block size that is reported, in bytes.
const BLOCK: u64 = 512;

impl Session<'_> {
    /// Where the kernel's first segment is, if it has been moved.
    pub(super) fn text_segment(&self) -> Option<u64> {
        if self.is_running() {
            return None;
        }
        self.linux.text_segment(&self.machine)
    }
}

impl ExecFile for Session<'_> {
    fn get_exec_file(
        &self,
        _: Option<Pid>,
        offset: u64,
        length: usize,
        buf: &mut [u8],
    ) -> TargetResult<usize, Self> {
        if self.is_running() {
            return Err(TargetError::Errno(errno::EBUSY));
        }
        let name = self.linux.file_name(&self.machine);
        let name = name.ok_or(TargetError::Errno(errno::ENOENT))?;
        let length = length.min(buf.len());
        Ok(copy_from(&name, offset, &mut buf[..length]))
    }
}

impl HostIo for Session<'_> {
    fn support_open(&mut self) -> Option<HostIoOpenOps<'_, Self>> {
        Some(self)
    }

    fn support_close(&mut self) -> Option<HostIoCloseOps<'_, Self>> {
        Some(self)
    }

    fn support_pread(&mut self) -> Option<HostIoPreadOps<'_, Self>> {
        Some(self)
    }

    fn support_fstat(&mut self) -> Option<HostIoFstatOps<'_, Self>> {
        Some(self)
    }

    fn support_setfs(&mut self) -> Option<HostIoSetfsOps<'_, Self>> {
        Some(self)
    }
}

impl HostIoOpen for Session<'_> {
    fn open(
        &mut self,
        name: &[u8],
        flags: HostIoOpenFlags,
        _: HostIoOpenMode,
    ) -> HostIoResult<u32, Self> {
        let writes = HostIoOpenFlags::O_WRONLY
            | HostIoOpenFlags::O_RDWR
            | HostIoOpenFlags::O_CREAT
            | HostIoOpenFlags::O_TRUNC;
        if self.is_running() {
            return Err(HostIoError::Errno(HostIoErrno::EBUSY));
        }
        if self.linux.file_name(&self.machine).as_deref() != Some(name) {
            Err(HostIoError::Errno(HostIoErrno::ENOENT))
        } else if flags.intersects(writes) {
            Err(HostIoError::Errno(HostIoErrno::EROFS))
        } else {
            Ok(FD)
        }
    }
}

impl HostIoClose for Session<'_> {
    fn close(&mut self, fd: u32) -> HostIoResult<(), Self> {
        check(fd)
    }
}

impl HostIoPread for Session<'_> {
    fn pread(
        &mut self,
        fd: u32,
        count: usize,
        offset: u64,
        buf: &mut [u8],
    ) -> HostIoResult<usize, Self> {
        check(fd)?;
        let count = count.min(buf.len());
        let read = self.linux.read_file(offset, &mut buf[..count]);
        read.map_err(|error| {
            tracing::warn!("gdb: the symbol file cannot be read: {error}");
            HostIoError::Errno(HostIoErrno::EIO)
        })
    }
}

impl HostIoFstat for Session<'_> {
    fn fstat(&mut self, fd: u32) -> HostIoResult<HostIoStat, Self> {
        check(fd)?;
        let size = self.linux.file_len();
        Ok(HostIoStat {
            st_dev: 0,
            st_ino: 0,
            st_mode: HostIoOpenMode::S_IFREG | HostIoOpenMode::S_IRUSR,
            st_nlink: 1,
            st_uid: 0,
            st_gid: 0,
            st_rdev: 0,
            st_size: size,
            st_blksize: BLOCK,
            st_blocks: size.div_ceil(BLOCK),
            st_atime: 0,
            st_mtime: 0,
            st_ctime: 0,
        })
    }
}

impl HostIoSetfs for Session<'_> {
    /// There is one file, whoever's view of the file system is asked for.
    fn setfs(&mut self, _: FsKind) -> HostIoResult<(), Self> {
        Ok(())
    }
}

fn check<E>(fd: u32) -> Result<(), HostIoError<E>> {
    match fd {
        FD => Ok(()),
        _ => Err(HostIoError::Errno(HostIoErrno::EBADF)),
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
