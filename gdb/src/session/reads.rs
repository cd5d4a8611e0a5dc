//! Memory for packets that gdbstub does not know.

use gdbstub::target::TargetError;
use gdbstub::target::ext::base::multithread::MultiThreadBase;

use super::Session;
use super::base::{MAX_READ, errno};
use super::stop::tid;
use crate::address::VcpuId;

impl Session<'_> {
    /// At most `len` bytes at `addr`, as a read for gdb's thread `thread` has them.
    ///
    /// # Errors
    /// The error number of the answer.
    pub(crate) fn read_for_thread(
        &mut self,
        thread: usize,
        addr: u64,
        len: usize,
    ) -> Result<Vec<u8>, u8> {
        let vcpu = thread.checked_sub(1).ok_or(errno::EINVAL)?;
        let mut bytes = vec![0; len.min(MAX_READ)];
        match self.read_addrs(addr, &mut bytes, tid(VcpuId(vcpu))) {
            Ok(count) => {
                bytes.truncate(count);
                Ok(bytes)
            }
            Err(TargetError::Errno(number)) => Err(number),
            Err(_) => Err(errno::EFAULT),
        }
    }
}
