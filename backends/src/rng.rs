//! The entropy device (virtio 1.3, section 5.4): one queue, whose buffers are to be filled.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::page_log::GuestRam;
use crate::pump::{Outcome, Scratch};
use crate::ratelimit::RateLimit;
use crate::virtio::VirtioDevice;
use crate::warn_limited;

/// Most bytes given at once. A driver that wants more asks again.
const MAX_BYTES: u64 = 4096;

static LOG: RateLimit = RateLimit::for_logs();

/// The source cannot be opened.
#[derive(Debug, Error)]
#[error("entropy source {path} cannot be opened for reading")]
pub struct SourceError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// An entropy device.
#[derive(Debug)]
pub struct Rng {
    source: File,
}

impl Rng {
    /// A device that gives what `path` does: a character device, a pipe or a file.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let source = options.open(path).map_err(|source| SourceError {
            path: path.to_owned(),
            source,
        })?;
        Ok(Rng { source })
    }

    fn fill(&self, memory: &GuestRam, scratch: &mut Scratch) -> io::Result<u32> {
        let buffer = &scratch.chain.writable;
        let mut bytes = [0; MAX_BYTES as usize];
        let wanted = buffer.len().min(MAX_BYTES) as usize;
        let len = (&self.source).read(&mut bytes[..wanted])?;
        if len == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match buffer.write(memory, 0, &bytes[..len]) {
            Ok(()) => Ok(len as u32),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a buffer of the driver");
                Ok(0)
            }
        }
    }
}

impl VirtioDevice for Rng {
    fn resumable(&self) -> bool {
        true
    }

    fn event(&self, _queue: u16) -> Option<RawFd> {
        Some(self.source.as_raw_fd())
    }

    fn process(&self, _queue: u16, memory: &GuestRam, scratch: &mut Scratch) -> Outcome {
        match self.fill(memory, scratch) {
            Ok(len) => Outcome::Done(len),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Outcome::Untouched,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Outcome::Wait,
            // The driver waits: it must not take anything else for random bytes.
            Err(error) => {
                warn_limited!(LOG, %error, "the entropy source gives nothing");
                Outcome::Wait
            }
        }
    }
}
