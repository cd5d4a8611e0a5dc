//! The block device as a [`VhostUserBackend`]: rings in, requests executed, interrupts out.
//!
//! Every queue has a thread of its own, so no lock is ever contended on the data path.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringRwLock};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::epoll::EventSet;

use super::request::Disk;
use super::{MAX_QUEUE_SIZE, config};
use crate::device::SharedMemory;
use crate::inflight::Record;
use crate::listeners::Listeners;
use crate::pump::{Outcome, Pump, Scratch};
use crate::ratelimit::RateLimit;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// A disk behind `queues` request queues.
pub struct BlkBackend {
    disk: Disk,
    queues: u16,
    features: AtomicU64,
    pumps: Vec<Mutex<Pump>>,
}

impl BlkBackend {
    /// A backend with one thread per queue. `queues` is from 1 to 64.
    pub fn new(disk: Disk, queues: u16) -> io::Result<Self> {
        Ok(BlkBackend {
            disk,
            queues,
            features: AtomicU64::new(0),
            pumps: (0..queues)
                .map(|_| Ok(Mutex::new(Pump::new()?)))
                .collect::<io::Result<_>>()?,
        })
    }

    /// Lets the worker of queue `id` come back to its ring by itself, and record there what is
    /// in flight. To be called once per queue, before serving.
    pub fn attach(&self, id: usize, listeners: &Listeners, record: Record) -> io::Result<()> {
        let mut pump = self.pump(id)?;
        pump.set_record(record);
        pump.attach(listeners, listeners.first_event())
    }

    fn pump(&self, id: usize) -> io::Result<MutexGuard<'_, Pump>> {
        let pump = self
            .pumps
            .get(id)
            .ok_or_else(|| io::Error::other(format!("no worker {id}")))?;
        // Scratch space is refilled before use: a panic elsewhere leaves nothing to fear.
        Ok(pump.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn serve(&self, memory: &GuestMemoryMmap, features: u64, scratch: &mut Scratch) -> Outcome {
        let result = self
            .disk
            .process(memory, &scratch.chain, features, &mut scratch.room);
        match result {
            Ok(completed) => {
                if let Some(error) = &completed.error {
                    let error: &dyn std::error::Error = error;
                    warn_limited!(LOG, error, "a request failed");
                }
                Outcome::Done(completed.used)
            }
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                warn_limited!(LOG, error, "dropped a request of the driver");
                Outcome::Done(0)
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
        for id in 0..self.pumps.len() {
            self.pump(id)?.set_memory(memory.clone());
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
        let Some(vring) = vrings.first() else {
            return Ok(());
        };
        let features = self.features.load(Ordering::Relaxed);
        self.pump(thread_id)?.run(vring, |memory, scratch| {
            self.serve(memory, features, scratch)
        })
    }
}
