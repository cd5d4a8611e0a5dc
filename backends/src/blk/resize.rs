//! Noticing that an image has got another size, as by truncate(1) or lvextend(8).

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use vmm_sys_util::timerfd::TimerFd;

use super::image::Image;

/// How often an image is looked at: nothing tells of a block device's new size.
const INTERVAL: Duration = Duration::from_secs(1);

/// A timer for looking at an image's size.
pub struct SizeWatch(Mutex<TimerFd>);

impl SizeWatch {
    /// The timer begins to run.
    pub fn new() -> io::Result<Self> {
        let mut timer = TimerFd::new()?;
        timer.reset(INTERVAL, Some(INTERVAL))?;
        Ok(SizeWatch(Mutex::new(timer)))
    }

    /// Readable when it is time to look.
    pub fn fd(&self) -> RawFd {
        let timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        timer.as_raw_fd()
    }

    /// Looks at the image, once it is time. Whether its size has changed.
    pub fn look(&self, image: &Image) -> bool {
        let mut timer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // It is readable, or nobody would have come here.
        let _ = timer.wait();
        match image.update_size() {
            Ok(Some(sectors)) => {
                tracing::info!(sectors, "the image has another size");
                true
            }
            Ok(None) => false,
            Err(error) => {
                tracing::debug!(%error, "the image's size cannot be found out");
                false
            }
        }
    }
}
