//! The block device for the kit: it offers features and passes chains to the disk.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::cache::WRITEBACK;
use super::full::{Enospc, Full};
use super::pool::Pool;
use super::queue::{Engine, Queue};
use super::request::{Disk, RequestError};
use super::resize::SizeWatch;
use super::{MAX_QUEUE_SIZE, config};
use crate::chain::Chain;
use crate::page_log::GuestRam;
use crate::processors::Processors;
use crate::ratelimit::RateLimit;
use crate::request::{Finished, Outcome, Request};
use crate::virtio::VirtioDevice;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// A disk behind request queues.
pub struct BlkDevice {
    disk: Arc<Disk>,
    queues: Vec<Mutex<Queue>>,
    /// By queue: signalled when something is finished.
    events: Vec<Arc<EventFd>>,
    /// By queue: readable when it is time to try something again.
    timers: Vec<RawFd>,
    /// `None` for an image whose size is fixed.
    size_watch: Option<SizeWatch>,
    poll_time: Duration,
    processors: Option<Processors>,
}

impl BlkDevice {
    /// A disk with `queues` request queues, 1 to 64, which are served by the best means that the
    /// host has.
    pub fn new(disk: Disk, queues: u16, enospc: Enospc) -> io::Result<Self> {
        BlkDevice::with_engine(disk, queues, enospc, Engine::probe())
    }

    /// The same by means of `engine`.
    pub fn with_engine(
        disk: Disk,
        queues: u16,
        enospc: Enospc,
        engine: Engine,
    ) -> io::Result<Self> {
        let can_change_size = disk.image().can_change_size();
        let size_watch = can_change_size.then(SizeWatch::new).transpose()?;
        let disk = Arc::new(disk);
        let pool = Arc::new(Pool::new(Arc::clone(&disk)));
        let events = (0..queues)
            .map(|_| EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let without_space = Arc::default();
        let queue = |event: &Arc<EventFd>| -> io::Result<Queue> {
            let full = Full::new(enospc, Arc::clone(&without_space));
            let (disk, pool) = (Arc::clone(&disk), Arc::clone(&pool));
            Queue::new(disk, engine, pool, Arc::clone(event), full)
        };
        let queues = events.iter().map(queue).collect::<io::Result<Vec<_>>>()?;
        Ok(BlkDevice {
            timers: queues.iter().map(Queue::timer).collect(),
            queues: queues.into_iter().map(Mutex::new).collect(),
            disk,
            events,
            size_watch,
            poll_time: Duration::ZERO,
            processors: None,
        })
    }

    /// Has the queues' threads poll for more for so long before they sleep.
    pub fn polling(self, poll_time: Duration) -> Self {
        BlkDevice { poll_time, ..self }
    }

    /// Keeps the queues' threads on `processors`, or lets them run where the scheduler likes.
    pub fn kept_on(self, processors: Option<Processors>) -> Self {
        BlkDevice { processors, ..self }
    }

    fn queue(&self, number: u16) -> MutexGuard<'_, Queue> {
        let queue = self.queues[usize::from(number)].lock();
        queue.unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u16 {
        self.queues.len() as u16
    }

    /// Tells the driver how a request went; returns how many bytes were written into it.
    fn answer(&self, memory: &GuestRam, chain: &Chain, result: Result<(), RequestError>) -> u32 {
        match self.disk.answer(memory, chain, result) {
            Ok(answered) => {
                if let Some(error) = &answered.error {
                    let error: &dyn std::error::Error = error;
                    warn_limited!(LOG, error, "a request failed");
                }
                answered.used
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a request of the driver");
                0
            }
        }
    }
}

impl VirtioDevice for BlkDevice {
    fn queues(&self) -> u16 {
        self.count()
    }

    fn max_queue_size(&self) -> u16 {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        config::features(self.disk.image(), self.count())
    }

    fn negotiated(&self, features: u64) {
        self.disk.cache().negotiated(features);
    }

    fn reset(&self) {
        self.disk.cache().reset();
    }

    fn config(&self) -> Vec<u8> {
        config::space(&self.disk, self.count()).to_vec()
    }

    /// The cache's mode is all that a driver can set.
    fn write_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        if self.disk.image().is_read_only() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let written = self.disk.cache().write(offset, bytes);
        written.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    /// The cache's mode: a driver that has chosen writethrough sends no FLUSH.
    fn state(&self) -> Option<Vec<u8>> {
        let has_mode = !self.disk.image().is_read_only();
        has_mode.then(|| vec![self.disk.cache().mode()])
    }

    fn restore(&self, state: &[u8]) -> io::Result<()> {
        self.write_config(WRITEBACK, state)
    }

    /// A write that is repeated writes the same; a driver expects no order of requests in flight.
    fn resumable(&self) -> bool {
        true
    }

    fn events(&self, queue: u16) -> Vec<RawFd> {
        let number = usize::from(queue);
        vec![self.events[number].as_raw_fd(), self.timers[number]]
    }

    fn stopping(&self, queue: u16) {
        self.queue(queue).set_stopping(true);
    }

    fn stopped(&self, queue: u16) {
        self.queue(queue).set_stopping(false);
    }

    fn config_event(&self) -> Option<RawFd> {
        self.size_watch.as_ref().map(SizeWatch::fd)
    }

    fn config_changed(&self) -> bool {
        let watch = self.size_watch.as_ref();
        watch.is_some_and(|watch| watch.look(self.disk.image()))
    }

    fn poll_time(&self) -> Duration {
        self.poll_time
    }

    fn processor(&self, queue: u16) -> Option<usize> {
        self.processors.as_ref()?.of_queue(queue)
    }

    fn process(&self, queue: u16, memory: &GuestRam, request: &mut Request) -> Outcome {
        match self.queue(queue).begin(request) {
            Some(result) => Outcome::Done(self.answer(memory, &request.chain, result)),
            None => Outcome::Pending,
        }
    }

    fn poll(&self, queue: u16, finished: &mut Finished) {
        let mut queue = self.queue(queue);
        queue.poll(|done| {
            let request = done.request;
            let used = self.answer(request.memory(), &request.chain, done.result);
            finished.push(request, used);
        });
        for request in queue.give_up() {
            let full = io::Error::from(io::ErrorKind::StorageFull).into();
            let used = self.answer(request.memory(), &request.chain, Err(full));
            finished.push_unfinished(request, used);
        }
    }
}
