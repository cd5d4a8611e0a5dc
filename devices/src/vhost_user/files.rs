//! Files that come with messages.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

/// Room for so many descriptors, the most that may come with a message (vhost-user
/// document, "Back-end communication"), though none that is known here has more than one.
/// It is an even number: in the kernel's layout an odd one is padded, and what comes in the
/// padding the crate does not see: it would stay open.
const ROOM: usize = 8;

/// Reads what has come, and the file that has come along: of several the first. The others
/// are closed.
pub fn receive(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<(usize, Option<File>)> {
    let mut fds: [RawFd; ROOM] = [-1; ROOM];
    let mut into = [libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    }];
    // SAFETY: `into` describes `buffer`, which is borrowed for writing and may hold any
    // bytes.
    let (count, files) = unsafe { stream.recv_with_fds(&mut into, &mut fds) }?;
    // SAFETY: the kernel has just made these descriptors, and nobody else has them.
    let own = |fd: &RawFd| unsafe { OwnedFd::from_raw_fd(*fd) };
    let files: Vec<OwnedFd> = fds.iter().take(files).map(own).collect();
    // A copy, because the kernel leaves the first one open to programs that this process
    // may start.
    let file = files.first().map(OwnedFd::try_clone).transpose()?;
    Ok((count, file.map(File::from)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_first_file_is_kept_and_no_other_stays_open() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let sent = tempfile::tempfile().unwrap();
        let inode = sent.metadata().unwrap().ino();
        for count in [0, 1, 2, 7, 8, 9] {
            let fds = vec![sent.as_raw_fd(); count];
            theirs.send_with_fds(&[&b"x"[..]], &fds).unwrap();
            let received = receive(&ours, &mut [0]);
            assert_eq!(
                copies(inode),
                1 + usize::from(matches!(received, Ok((_, Some(_)))))
            );
            if let Ok((bytes, file)) = received {
                assert_eq!((bytes, file.is_some()), (1, count > 0));
            } else {
                assert!(count > 8);
            }
        }
    }

    /// How many descriptors of this process are for the file with this inode.
    fn copies(inode: u64) -> usize {
        let is_it = |entry: io::Result<std::fs::DirEntry>| {
            let metadata = std::fs::metadata(entry.ok()?.path()).ok()?;
            (metadata.ino() == inode).then_some(())
        };
        let entries = std::fs::read_dir("/proc/self/fd").unwrap();
        entries.filter_map(is_it).count()
    }
}
