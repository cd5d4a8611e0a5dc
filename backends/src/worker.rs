//! Worker threads: where a backend's `handle_event` runs.
//!
//! Each entry of `queues_per_thread` gets one thread with one epoll instance. A worker alone
//! touches its epoll registrations and knows which of its rings run; others ask it by sending a
//! job, which it runs between two events. A job that has been answered is therefore a barrier:
//! no event is being handled, and a ring that was stopped stays untouched.
//!
//! Kick descriptors are watched edge-triggered and never read. Every write to an eventfd is an
//! edge, so no kick is lost, a system call is saved, and a frontend that passes a descriptor on
//! which reads block cannot stall the worker.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use vhost_user_backend::{VhostUserBackend, VringT};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::error_sign::ErrorSign;
use crate::listeners::Listeners;
use crate::patience::{DRAIN_DEADLINE, LOG_EVERY};
use crate::processors::{self, Unusable};
use crate::ratelimit::RateLimit;
use crate::sandbox::{self, Thread};
use crate::shutdown::ShutdownHandle;
use crate::{log_limited, warn_limited};

/// How long a worker may take to come back from `handle_event` and answer. A device may serve a
/// request there that takes as long as its storage does.
pub const JOB_DEADLINE: Duration = DRAIN_DEADLINE;

/// The same at the end of the process, which ends the request as well.
const EXIT_DEADLINE: Duration = Duration::from_secs(30);

/// A driver may reset its device as often as it likes.
static STOPS: RateLimit = RateLimit::for_logs();

/// Jobs are waiting.
const WAKE: u64 = u64::MAX;
/// The backend's own exit event.
const BACKEND_EXIT: u64 = u64::MAX - 1;
/// Events taken from epoll at once.
const BATCH: usize = 64;

/// A worker cannot be had or does not answer.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// A queue that no thread serves; the backend is at fault.
    #[error("queue {0} is in no entry of the backend's queues_per_thread")]
    Unassigned(usize),
    /// The host refused a thread, an epoll instance or an eventfd.
    #[error("worker {id} cannot be set up")]
    Setup {
        /// Worker number.
        id: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `handle_event` has not returned within [`JOB_DEADLINE`].
    #[error("worker {0} has not come back from the device within {1:?}")]
    Stuck(usize, Duration),
    /// The thread has ended.
    #[error("worker {0} has ended")]
    Gone(usize),
}

type Job<T> = Box<dyn FnOnce(&mut Core<T>) + Send>;

/// The state that one worker thread owns.
pub struct Core<T: VhostUserBackend> {
    id: usize,
    backend: T,
    vrings: Vec<T::Vring>,
    /// By local ring number: the kick descriptor of a running ring.
    kicks: Vec<Option<File>>,
    /// By local ring number: how often a kick woke this thread since the ring started.
    woken: Vec<u64>,
    /// By local ring number: where to signal that a ring cannot be processed.
    errs: Vec<ErrorSign>,
    /// Rings to process once though nobody has kicked them.
    pending: Vec<usize>,
    epoll: Arc<Epoll>,
    listeners: Listeners,
    wake: EventConsumer,
    jobs: mpsc::Receiver<Job<T>>,
    shutdown: ShutdownHandle,
    running: bool,
    log: RateLimit,
}

impl<T: VhostUserBackend> Core<T> {
    /// Begins to watch a ring's kick descriptor and processes the ring once: the driver may have
    /// kicked before anybody listened.
    fn start(&mut self, ring: usize, kick: File) -> io::Result<()> {
        self.forget_kick(ring);
        self.epoll.ctl(
            ControlOperation::Add,
            kick.as_raw_fd(),
            EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, ring as u64),
        )?;
        self.kicks[ring] = Some(kick);
        self.woken[ring] = 0;
        self.pending.push(ring);
        Ok(())
    }

    /// Stops a ring. On this thread, because other events than kicks make the device process
    /// it too: none may see the ring stop half-way through.
    fn stop(&mut self, ring: usize) {
        self.forget_kick(ring);
        self.vrings[ring].set_enabled(false);
        self.vrings[ring].set_queue_ready(false);
    }

    /// Events of the kick that were already taken from epoll are ignored after this.
    fn forget_kick(&mut self, ring: usize) {
        self.pending.retain(|&r| r != ring);
        if let Some(kick) = self.kicks[ring].take() {
            // Closing the descriptor would not do: the frontend holds the same open file.
            let _ = self.epoll.ctl(
                ControlOperation::Delete,
                kick.as_raw_fd(),
                EpollEvent::default(),
            );
            log_limited!(
                info,
                STOPS,
                worker = self.id,
                ring,
                kicks = self.woken[ring],
                "ring stopped"
            );
        }
    }

    fn run(mut self) {
        let mut events = [EpollEvent::default(); BATCH];
        while self.running {
            let count = match self.epoll.wait(-1, &mut events) {
                Ok(count) => count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    tracing::error!(worker = self.id, error = %e, "epoll_wait failed; giving up");
                    self.shutdown.shutdown();
                    return;
                }
            };
            for event in &events[..count] {
                self.event(event.data(), EventSet::from_bits_truncate(event.events()));
            }
            while let Some(ring) = self.pending.pop() {
                self.ring_event(ring, EventSet::IN);
            }
        }
    }

    fn event(&mut self, token: u64, set: EventSet) {
        match token {
            WAKE => self.run_jobs(),
            BACKEND_EXIT => {
                tracing::info!(worker = self.id, "the device asked to exit");
                self.running = false;
                self.shutdown.shutdown();
            }
            token => match usize::try_from(token) {
                Ok(ring) if ring < self.kicks.len() => {
                    self.woken[ring] += 1;
                    self.ring_event(ring, set);
                }
                _ => self.listener_event(token as u16, set),
            },
        }
    }

    fn run_jobs(&mut self) {
        // Nonblocking; an error only says that the counter is already 0.
        let _ = self.wake.consume();
        while let Ok(job) = self.jobs.try_recv() {
            job(self);
        }
    }

    fn ring_event(&mut self, ring: usize, set: EventSet) {
        if self.kicks[ring].is_none() {
            return;
        }
        let result = self
            .backend
            .handle_event(ring as u16, set, &self.vrings, self.id);
        if let Err(e) = result {
            warn_limited!(
                self.log, worker = self.id, ring, error = %e,
                "the device failed to process a ring"
            );
            self.errs[ring].signal();
        }
    }

    fn listener_event(&mut self, event: u16, set: EventSet) {
        let result = self.backend.handle_event(event, set, &self.vrings, self.id);
        if let Err(e) = result {
            // A level-triggered event that is never handled would keep the thread spinning.
            tracing::error!(
                worker = self.id, event, error = %e,
                "the device failed to handle an event and will not hear of it again"
            );
            let _ = self.listeners.unregister(event);
        }
    }
}

/// One worker as seen from the control thread.
struct Worker<T: VhostUserBackend> {
    id: usize,
    jobs: mpsc::Sender<Job<T>>,
    wake: EventNotifier,
    listeners: Listeners,
    /// The backend's own exit event, if it has one: some wait for it themselves.
    exit: Option<EventNotifier>,
    thread: Option<JoinHandle<()>>,
    /// By local ring number: where to signal that a ring cannot be processed.
    errs: Vec<ErrorSign>,
}

impl<T: VhostUserBackend> Worker<T> {
    fn call<R: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Core<T>) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        self.call_within(JOB_DEADLINE, job)
    }

    fn call_within<R: Send + 'static>(
        &self,
        limit: Duration,
        job: impl FnOnce(&mut Core<T>) -> R + Send + 'static,
    ) -> Result<R, WorkerError> {
        let (answer, wait) = mpsc::sync_channel(1);
        let job: Job<T> = Box::new(move |core| {
            let _ = answer.send(job(core));
        });
        self.jobs
            .send(job)
            .map_err(|_| WorkerError::Gone(self.id))?;
        self.wake.notify().map_err(|_| WorkerError::Gone(self.id))?;
        let begun = Instant::now();
        loop {
            let left = limit.saturating_sub(begun.elapsed());
            match wait.recv_timeout(LOG_EVERY.min(left)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Err(WorkerError::Gone(self.id)),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                    return Err(WorkerError::Stuck(self.id, limit));
                }
                Err(RecvTimeoutError::Timeout) => tracing::warn!(
                    worker = self.id,
                    "the device is at work on a request, and is waited for: for {:.0?} so far, \
                     and {limit:.0?} at most",
                    begun.elapsed(),
                ),
            }
        }
    }
}

impl<T: VhostUserBackend> Drop for Worker<T> {
    fn drop(&mut self) {
        let stopped = self.call_within(EXIT_DEADLINE, |core| core.running = false);
        if let Some(exit) = &self.exit {
            let _ = exit.notify();
        }
        // A stuck thread cannot be joined; it ends with the process.
        let joinable = !matches!(stopped, Err(WorkerError::Stuck(..)));
        let Some(thread) = self.thread.take().filter(|_| joinable) else {
            return;
        };
        if thread.join().is_err() {
            tracing::error!(worker = self.id, "the worker had panicked");
        }
    }
}

/// All workers of a device.
pub struct Pool<T: VhostUserBackend> {
    workers: Vec<Worker<T>>,
    /// By queue: its worker and its number there.
    slots: Vec<(usize, usize)>,
}

impl<T> Pool<T>
where
    T: VhostUserBackend + Clone + 'static,
    T::Vring: Clone + Send + Sync + 'static,
{
    /// Starts one thread per entry of the backend's `queues_per_thread`.
    pub fn new(
        backend: &T,
        vrings: &[T::Vring],
        shutdown: &ShutdownHandle,
    ) -> Result<Self, WorkerError> {
        let masks = backend.queues_per_thread();
        let slots = assign(&masks, vrings.len())?;
        let mut workers = Vec::new();
        for id in 0..masks.len() {
            let own: Vec<T::Vring> = slots
                .iter()
                .zip(vrings)
                .filter(|((worker, _), _)| *worker == id)
                .map(|(_, vring)| vring.clone())
                .collect();
            let worker = spawn(id, backend.clone(), own, vrings.len(), shutdown.clone())
                .map_err(|source| WorkerError::Setup { id, source })?;
            workers.push(worker);
        }
        Ok(Pool { workers, slots })
    }
}

impl<T: VhostUserBackend> Pool<T> {
    /// Where the backend registers descriptors of its own with worker `id`.
    pub fn listeners(&self, id: usize) -> Option<Listeners> {
        self.workers.get(id).map(|w| w.listeners.clone())
    }

    /// Keeps the thread of worker `id` on one processor.
    pub fn keep_on(
        &self,
        id: usize,
        processor: usize,
    ) -> Result<Result<(), Unusable>, WorkerError> {
        let worker = self.workers.get(id).ok_or(WorkerError::Gone(id))?;
        worker.call(move |_| processors::keep_on(processor))
    }

    /// Lets the worker process `ring` whenever `kick` is signalled, and once now.
    pub fn start(&self, ring: usize, kick: File) -> Result<io::Result<()>, WorkerError> {
        let (worker, slot) = self.slot(ring)?;
        worker.call(move |core| core.start(slot, kick))
    }

    /// Stops `ring`. When this returns no event of it is being handled or will be.
    pub fn stop(&self, ring: usize) -> Result<(), WorkerError> {
        let (worker, slot) = self.slot(ring)?;
        worker.call(move |core| core.stop(slot))
    }

    /// Sets where to signal that `ring` cannot be processed.
    pub fn set_err(&self, ring: usize, err: Option<File>) -> Result<(), WorkerError> {
        let (worker, slot) = self.slot(ring)?;
        worker.call(move |core| core.errs[slot].set(err))
    }

    /// Where the backend itself signals that something is wrong with `ring`.
    pub fn error_sign(&self, ring: usize) -> Option<ErrorSign> {
        let (worker, slot) = self.slot(ring).ok()?;
        worker.errs.get(slot).cloned()
    }

    fn slot(&self, ring: usize) -> Result<(&Worker<T>, usize), WorkerError> {
        self.slots
            .get(ring)
            .and_then(|&(worker, slot)| Some((self.workers.get(worker)?, slot)))
            .ok_or(WorkerError::Unassigned(ring))
    }
}

/// For each queue the worker that serves it (the first whose mask names it) and its number there.
fn assign(masks: &[u64], queues: usize) -> Result<Vec<(usize, usize)>, WorkerError> {
    let mut used = vec![0; masks.len()];
    (0..queues)
        .map(|queue| {
            let worker = masks
                .iter()
                .position(|mask| queue < 64 && mask >> queue & 1 == 1)
                .ok_or(WorkerError::Unassigned(queue))?;
            let slot = used[worker];
            used[worker] += 1;
            Ok((worker, slot))
        })
        .collect()
}

fn spawn<T>(
    id: usize,
    backend: T,
    vrings: Vec<T::Vring>,
    queues: usize,
    shutdown: ShutdownHandle,
) -> io::Result<Worker<T>>
where
    T: VhostUserBackend + 'static,
    T::Vring: Send + Sync + 'static,
{
    let epoll = Arc::new(Epoll::new()?);
    let watch = |fd, token| {
        epoll.ctl(
            ControlOperation::Add,
            fd,
            EpollEvent::new(EventSet::IN, token),
        )
    };
    let (consumer, wake) =
        new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC)?;
    watch(consumer.as_raw_fd(), WAKE)?;
    let (exit_consumer, exit) = backend.exit_event(id).unzip();
    if let Some(consumer) = &exit_consumer {
        watch(consumer.as_raw_fd(), BACKEND_EXIT)?;
    }
    let first = u16::try_from(queues + 1).map_err(io::Error::other)?;
    let listeners = Listeners::new(Arc::clone(&epoll), first);
    let (sender, jobs) = mpsc::channel();
    let errs: Vec<_> = vrings.iter().map(|_| ErrorSign::default()).collect();
    let core = Core {
        id,
        backend,
        kicks: vrings.iter().map(|_| None).collect(),
        woken: vec![0; vrings.len()],
        errs: errs.clone(),
        vrings,
        pending: Vec::new(),
        epoll,
        listeners: listeners.clone(),
        wake: consumer,
        jobs,
        shutdown,
        running: true,
        log: RateLimit::for_logs(),
    };
    let thread = std::thread::Builder::new()
        .name(format!("vring-worker-{id}"))
        .spawn(move || {
            sandbox::enter(Thread::Queue);
            core.run();
            drop(exit_consumer);
        })?;
    Ok(Worker {
        id,
        jobs: sender,
        wake,
        listeners,
        exit,
        thread: Some(thread),
        errs,
    })
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod tests;
