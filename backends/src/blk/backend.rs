//! The block device as a [`VhostUserBackend`]: rings in, requests executed, interrupts out.
//!
//! Every queue has a thread of its own, so no lock is ever contended on the data path.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringRwLock, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use super::request::Disk;
use super::{MAX_QUEUE_SIZE, config};
use crate::chain::Chain;
use crate::device::SharedMemory;
use crate::iovec::IoVecBuf;
use crate::ratelimit::RateLimit;
use crate::warn_limited;
use crate::worker::Listeners;

/// Requests taken from a ring before the worker looks at anything else. A driver that adds
/// requests as fast as they complete must not keep the worker from hearing that it should stop.
const BUDGET: u32 = 4 * MAX_QUEUE_SIZE as u32;

/// Chains that need no notification each; one is sent per batch at the latest.
static LOG: RateLimit = RateLimit::for_logs();

/// What one worker keeps from request to request.
struct Worker {
    memory: Option<SharedMemory<()>>,
    chain: Chain,
    room: IoVecBuf,
    again: (EventConsumer, EventNotifier),
}

/// A disk behind `queues` request queues.
pub struct BlkBackend {
    disk: Disk,
    queues: u16,
    features: AtomicU64,
    workers: Vec<Mutex<Worker>>,
}

impl BlkBackend {
    /// A backend with one thread per queue. `queues` is from 1 to 64.
    pub fn new(disk: Disk, queues: u16) -> io::Result<Self> {
        let workers = (0..queues)
            .map(|_| {
                Ok(Mutex::new(Worker {
                    memory: None,
                    chain: Chain::default(),
                    room: IoVecBuf::default(),
                    again: new_event_consumer_and_notifier(
                        EventFlag::NONBLOCK | EventFlag::CLOEXEC,
                    )?,
                }))
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(BlkBackend {
            disk,
            queues,
            features: AtomicU64::new(0),
            workers,
        })
    }

    /// Lets worker `id` come back to its ring by itself. To be called once per queue, before
    /// serving.
    pub fn attach(&self, id: usize, listeners: &Listeners) -> io::Result<()> {
        let worker = self.worker(id)?;
        listeners.register(
            worker.again.0.as_raw_fd(),
            EventSet::IN | EventSet::EDGE_TRIGGERED,
            listeners.first_event(),
        )
    }

    fn worker(&self, id: usize) -> io::Result<std::sync::MutexGuard<'_, Worker>> {
        let worker = self
            .workers
            .get(id)
            .ok_or_else(|| io::Error::other(format!("no worker {id}")))?;
        // Scratch space is refilled before use: a panic elsewhere leaves nothing to fear.
        Ok(worker.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// Executes what the ring holds, up to [`BUDGET`] requests, and notifies the driver.
    fn process_ring(&self, vring: &VringRwLock, worker: &mut Worker) -> io::Result<()> {
        let Some(memory) = worker.memory.as_ref().map(|m| m.memory()) else {
            return Ok(());
        };
        let features = self.features.load(Ordering::Relaxed);
        let mut budget = BUDGET;
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            let mut done = 0;
            while done < budget && self.process_next(vring, &memory, features, worker)? {
                done += 1;
            }
            if done > 0 && vring.needs_notification().map_err(io::Error::other)? {
                vring.signal_used_queue()?;
            }
            budget -= done;
            if budget == 0 {
                return worker.again.1.notify();
            }
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }

    /// Executes the next request; `false` if there is none.
    fn process_next(
        &self,
        vring: &VringRwLock,
        memory: &GuestMemoryMmap,
        features: u64,
        worker: &mut Worker,
    ) -> io::Result<bool> {
        let next = vring
            .get_mut()
            .get_queue_mut()
            .iter(memory)
            .map_err(io::Error::other)?
            .next();
        let Some(descriptors) = next else {
            return Ok(false);
        };
        let head = descriptors.head_index();
        let used = match worker.chain.refill(descriptors) {
            Ok(()) => self.execute(memory, features, worker),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, head, error, "dropped a malformed chain of the driver");
                0
            }
        };
        vring.add_used(head, used).map_err(io::Error::other)?;
        Ok(true)
    }

    fn execute(&self, memory: &GuestMemoryMmap, features: u64, worker: &mut Worker) -> u32 {
        let result = self
            .disk
            .process(memory, &worker.chain, features, &mut worker.room);
        match result {
            Ok(completed) => {
                if let Some(error) = &completed.error {
                    let error: &dyn std::error::Error = error;
                    warn_limited!(LOG, error, "a request failed");
                }
                completed.used
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a request of the driver");
                0
            }
        }
    }
}

impl VhostUserBackend for BlkBackend {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        usize::from(self.queues)
    }

    fn max_queue_size(&self) -> usize {
        usize::from(MAX_QUEUE_SIZE)
    }

    fn features(&self) -> u64 {
        config::features(self.disk.image(), self.queues)
    }

    fn acked_features(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn reset_device(&self) {
        self.features.store(0, Ordering::Relaxed);
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The vrings know.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space = config::space(self.disk.image(), self.queues);
        let start = (offset as usize).min(space.len());
        let end = (offset as usize).saturating_add(size as usize);
        space[start..end.min(space.len())].to_vec()
    }

    fn set_config(&self, _offset: u32, _buf: &[u8]) -> io::Result<()> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "no field of this disk's configuration space is writable",
        ))
    }

    fn update_memory(&self, memory: SharedMemory<()>) -> io::Result<()> {
        for id in 0..self.workers.len() {
            self.worker(id)?.memory = Some(memory.clone());
        }
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.queues).map(|queue| 1 << queue).collect()
    }

    /// Each worker has one ring: whatever the event, that is what there is to look at.
    fn handle_event(
        &self,
        _event: u16,
        _set: EventSet,
        vrings: &[VringRwLock],
        thread_id: usize,
    ) -> io::Result<()> {
        let mut worker = self.worker(thread_id)?;
        match vrings.first() {
            Some(vring) if is_running(vring) => self.process_ring(vring, &mut worker),
            _ => Ok(()),
        }
    }
}

/// Whether the ring may be processed. An event of the worker's own can come after it was stopped.
fn is_running(vring: &VringRwLock) -> bool {
    let state = vring.get_ref();
    state.is_enabled() && state.get_queue().ready()
}
