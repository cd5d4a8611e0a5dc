//! Waits on descriptors.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a backend may take for anything.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long to watch that something does not happen. What takes longer is missed: no wait proves
/// that something never happens.
pub const QUIET: Duration = Duration::from_millis(50);

/// Whether `fd` can be read, or its other end is closed, within `time`.
pub fn wait_readable(fd: impl AsFd, time: Duration) -> std::io::Result<bool> {
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(std::io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
