//! The symbol files, served to gdb: which they are, and their bytes.
//!
//! `gdb -ex 'target remote …'` alone then has symbols: gdb asks for the name of
//! the executable (`qXfer:exec-file:read`) and reads it through Host I/O packets
//! (`vFile`). The symbols of modules are another file, for `add-symbol-file`. Nothing
//! else of the host's files can be opened.

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
use crate::linux::{Served, copy_from};

/// The descriptors of the files there are. They have no position, so that gdb may
/// open them as often as it likes.
const MAIN: u32 = 3;
const MODULES: u32 = 4;
const FIRST_MODULE: u32 = 5;

fn descriptor(file: Served) -> Option<u32> {
    match file {
        Served::Main => Some(MAIN),
        Served::Modules => Some(MODULES),
        Served::Module(number) => FIRST_MODULE.checked_add(number),
    }
}

fn file(descriptor: u32) -> Option<Served> {
    match descriptor {
        MAIN => Some(Served::Main),
        MODULES => Some(Served::Modules),
        _ => Some(Served::Module(descriptor.checked_sub(FIRST_MODULE)?)),
    }
}

/// Block size that is reported, in bytes.
const BLOCK: u64 = 512;

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
        let name = self.guest.linux.file_name(&self.guest.machine);
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
        let file = self.guest.linux.open(&self.guest.machine, name);
        let file = file.ok_or(HostIoError::Errno(HostIoErrno::ENOENT))?;
        if flags.intersects(writes) {
            return Err(HostIoError::Errno(HostIoErrno::EROFS));
        }
        descriptor(file).ok_or(HostIoError::Errno(HostIoErrno::ENOENT))
    }
}

impl HostIoClose for Session<'_> {
    fn close(&mut self, fd: u32) -> HostIoResult<(), Self> {
        self.served(fd).map(drop)
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
        let file = self.served(fd)?;
        let count = count.min(buf.len());
        let read = self.guest.linux.read_file(file, offset, &mut buf[..count]);
        read.map_err(|error| {
            tracing::warn!("gdb: the symbol file cannot be read: {error}");
            HostIoError::Errno(HostIoErrno::EIO)
        })
    }
}

impl HostIoFstat for Session<'_> {
    fn fstat(&mut self, fd: u32) -> HostIoResult<HostIoStat, Self> {
        let size = self.guest.linux.file_len(self.served(fd)?);
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

impl Session<'_> {
    /// The file behind a descriptor that was given out.
    fn served(&self, fd: u32) -> HostIoResult<Served, Self> {
        file(fd)
            .filter(|file| self.guest.linux.is_open(*file))
            .ok_or(HostIoError::Errno(HostIoErrno::EBADF))
    }
}

#[cfg(test)]
#[path = "files_test.rs"]
mod tests;
