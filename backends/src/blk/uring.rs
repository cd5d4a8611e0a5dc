//! Reads and writes by io_uring: many at once, and the thread that starts them waits for none.
//!
//! A ring belongs to one thread, which creates it, starts requests in it and takes finished
//! ones back. An eventfd says that there are finished ones.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::types::Fd;
use io_uring::{IoUring, Probe, opcode, squeue};

use super::job::{Done, Job, Kind};
use crate::iovec::MAX_PER_CALL;

/// Entries of the submission queue, that is, requests in one system call. There may be more in
/// flight.
const ENTRIES: u32 = 128;

/// A ring for one file.
///
/// The file is not registered with it: the kernel would keep a registered one, and the lock on
/// it, for some time after this process is killed, when its successor needs it.
pub struct Uring {
    ring: IoUring,
    file: Fd,
    /// Jobs in flight, by the number that the kernel knows them by.
    jobs: Vec<Option<Job>>,
    free: Vec<usize>,
    /// Those that the submission queue had no room for.
    backlog: Vec<usize>,
}

impl Uring {
    /// A ring for the calling thread, which hears of completions by `event`. `file` stays open as
    /// long as the ring is there.
    pub fn new(file: &File, event: RawFd) -> io::Result<Self> {
        let ring = build()?;
        ring.submitter().register_eventfd(event)?;
        Ok(Uring {
            ring,
            file: Fd(file.as_raw_fd()),
            jobs: Vec::new(),
            free: Vec::new(),
            backlog: Vec::new(),
        })
    }

    /// Whether this host lets the process use the io_uring operations that are needed here.
    pub fn probe() -> io::Result<()> {
        let ring = build()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let codes = [opcode::Readv::CODE, opcode::Writev::CODE];
        if codes.into_iter().all(|code| probe.is_supported(code)) {
            return Ok(());
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.free.len() == self.jobs.len()
    }

    /// Starts a job with the next [`poll`](Self::poll).
    pub fn start(&mut self, job: Job) {
        let key = self.free.pop().unwrap_or(self.jobs.len());
        if key == self.jobs.len() {
            self.jobs.push(None);
        }
        self.jobs[key] = Some(job);
        self.push(key);
    }

    /// Starts the collected jobs, and hands over finished ones.
    pub fn poll(&mut self, mut finish: impl FnMut(Done)) -> io::Result<()> {
        loop {
            self.submit()?;
            for key in std::mem::take(&mut self.backlog) {
                self.push(key);
            }
            if !self.reap(&mut finish) && self.backlog.is_empty() {
                return Ok(());
            }
        }
    }

    /// Takes finished jobs back. Whether there are jobs to continue, which the kernel has done in
    /// part.
    fn reap(&mut self, finish: &mut impl FnMut(Done)) -> bool {
        let mut goes_on = false;
        loop {
            let entry = self.ring.completion().next();
            let Some(entry) = entry else {
                return goes_on;
            };
            let key = entry.user_data() as usize;
            let Some(job) = self.jobs.get_mut(key).and_then(Option::as_mut) else {
                continue;
            };
            let result = match entry.result() {
                error @ ..0 => Err(io::Error::from_raw_os_error(-error)),
                count => Ok(count as usize),
            };
            match job.advance(result) {
                None => {
                    goes_on = true;
                    self.push(key);
                }
                Some(result) => {
                    if let Some(job) = self.jobs[key].take() {
                        self.free.push(key);
                        finish(job.done(result));
                    }
                }
            }
        }
    }

    /// Queues the system call that job `key` needs next.
    fn push(&mut self, key: usize) {
        let Some(job) = &self.jobs[key] else {
            return;
        };
        let entry = entry(job, self.file).user_data(key as u64);
        // SAFETY: the entry points to iovecs and through them to guest memory. The job has both,
        // and stays in `jobs` until the kernel has completed it: `Drop` sees to that.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push(key);
        }
    }

    /// Hands queued system calls to the kernel, and lets it complete what it has deferred.
    fn submit(&mut self) -> io::Result<()> {
        let queue = self.ring.submission();
        if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
            return Ok(());
        }
        drop(queue);
        loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                result => return result.map(drop),
            }
        }
    }
}

impl Drop for Uring {
    /// The kernel may be at work in guest memory until the process ends.
    fn drop(&mut self) {
        if !self.is_idle() {
            std::mem::forget(std::mem::take(&mut self.jobs));
        }
    }
}

/// A ring whose completions wait until their thread asks for them (Linux 6.1), or one as it was
/// before.
fn build() -> io::Result<IoUring> {
    let deferred = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .build(ENTRIES);
    match deferred {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(ENTRIES),
        result => result,
    }
}

fn entry(job: &Job, file: Fd) -> squeue::Entry {
    let iovecs = job.iovecs();
    let count = iovecs.len().min(MAX_PER_CALL) as u32;
    match job.kind() {
        Kind::Read => opcode::Readv::new(file, iovecs.as_ptr(), count)
            .offset(job.offset())
            .build(),
        kind @ Kind::Write { .. } => opcode::Writev::new(file, iovecs.as_ptr(), count)
            .offset(job.offset())
            .rw_flags(kind.flags())
            .build(),
    }
}

#[cfg(test)]
#[path = "uring_test.rs"]
mod tests;
