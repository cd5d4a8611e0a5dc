//! The entropy device (virtio 1.3, section 5.4): one queue, whose buffers are to be filled.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use thiserror::Error;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::page_log::GuestRam;
use crate::ratelimit::RateLimit;
use crate::request::{Outcome, Request};
use crate::virtio::VirtioDevice;
use crate::warn_limited;

pub mod args;
pub mod limit;

use limit::{Budget, Limit};

/// Most bytes given at once. A driver that wants more asks again.
const MAX_BYTES: u64 = 4096;

static LOG: RateLimit = RateLimit::for_logs();

/// Why there is no device.
#[derive(Debug, Error)]
pub enum RngError {
    /// The user's doing.
    #[error("entropy source {path} cannot be opened for reading")]
    Source {
        /// The path asked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host has no timer or epoll instance for it.
    #[error("the limit cannot be kept")]
    Limit(#[source] io::Error),
}

/// An entropy device.
#[derive(Debug)]
pub struct Rng {
    source: File,
    throttle: Option<Throttle>,
}

/// A limit, and the descriptors to wait for under it.
#[derive(Debug)]
struct Throttle {
    budget: Mutex<Budget>,
    /// Readable when the budget's timer or the source is.
    ready: Epoll,
}

impl Throttle {
    fn new(limit: Limit, source: &File) -> io::Result<Self> {
        let budget = Budget::new(limit, Instant::now())?;
        let ready = Epoll::new()?;
        let edge = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        ready.ctl(ControlOperation::Add, budget.timer().as_raw_fd(), edge)?;
        match ready.ctl(ControlOperation::Add, source.as_raw_fd(), edge) {
            // epoll cannot watch a source that never makes anybody wait.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (),
            result => result?,
        }
        Ok(Throttle {
            budget: Mutex::new(budget),
            ready,
        })
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Rng {
    /// A device that gives the bytes of `path`, a character device, a pipe or a file, as many as
    /// `limit` allows.
    pub fn open(path: &Path, limit: Option<Limit>) -> Result<Self, RngError> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let source = options.open(path).map_err(|source| RngError::Source {
            path: path.to_owned(),
            source,
        })?;
        let throttle = limit.map(|limit| Throttle::new(limit, &source)).transpose();
        Ok(Rng {
            throttle: throttle.map_err(RngError::Limit)?,
            source,
        })
    }

    /// How many bytes of `wanted` the driver may have now.
    fn granted(&self, wanted: u64) -> io::Result<u64> {
        match &self.throttle {
            Some(throttle) => throttle.budget().granted(wanted, Instant::now()),
            None => Ok(wanted),
        }
    }

    fn spend(&self, bytes: usize) {
        if let Some(throttle) = &self.throttle {
            throttle.budget().spend(bytes as u64);
        }
    }

    fn fill(&self, memory: &GuestRam, request: &mut Request) -> io::Result<u32> {
        let buffer = &request.chain.writable;
        let mut bytes = [0; MAX_BYTES as usize];
        let wanted = buffer.len().min(MAX_BYTES);
        let granted = self.granted(wanted)? as usize;
        if wanted > 0 && granted == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = (&self.source).read(&mut bytes[..granted])?;
        if len == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.spend(len);
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

    fn events(&self, _queue: u16) -> Vec<RawFd> {
        vec![match &self.throttle {
            Some(throttle) => throttle.ready.as_raw_fd(),
            None => self.source.as_raw_fd(),
        }]
    }

    fn process(&self, _queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        match self.fill(memory, request) {
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
