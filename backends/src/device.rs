//! The parts that outlive a session: the backend, its rings, its memory handle and its workers.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use thiserror::Error;
use vhost_user_backend::{VhostUserBackend, VringT};
use virtio_queue::QueueT;
use vm_memory::mmap::NewBitmap;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

use crate::error_sign::ErrorSign;
use crate::inflight::{self, InflightError, Region, Tracker};
use crate::listeners::Listeners;
use crate::memory::SharedMemory;
use crate::needs_reset::NeedsReset;
use crate::notifier::ConfigNotifier;
use crate::packed::{BaseError, Layout, PackedRing};
use crate::progress::{Progress, Record};
use crate::ratelimit::RateLimit;
use crate::shutdown::ShutdownHandle;
use crate::vring::ReadyRing;
use crate::warn_limited;
use crate::worker::{Pool, WorkerError};

static LOG: RateLimit = RateLimit::for_logs();

/// The most queues a device may have: `queues_per_thread` is made of 64-bit masks.
pub const MAX_QUEUES: usize = 64;

/// Where a device keeps the state that its driver has set, for the process that takes its place.
#[derive(Debug, Clone, Default)]
pub struct StateRecord(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    region: Option<Arc<Region>>,
    /// What was stored last. A driver may write into its configuration space before there is a
    /// record.
    state: Option<Vec<u8>>,
}

impl StateRecord {
    /// The record in use from here on. One without a state takes what was stored before.
    pub(crate) fn begin(&self, region: Arc<Region>) -> Result<(), InflightError> {
        let mut recorded = self.lock();
        if let (Some(state), None) = (&recorded.state, region.state()?) {
            region.store_state(state)?;
        }
        recorded.region = Some(region);
        Ok(())
    }

    /// The session is over. The record belongs to the frontend.
    pub(crate) fn end(&self) {
        *self.lock() = Recorded::default();
    }

    /// Keeps `state` in place of any before it, for a frontend that holds a record that outlives
    /// this process.
    pub fn store(&self, state: &[u8]) -> Result<(), InflightError> {
        let mut recorded = self.lock();
        recorded.state = Some(state.to_vec());
        match &recorded.region {
            Some(region) => region.store_state(state).map(drop),
            None => Ok(()),
        }
    }

    /// The device has been reset: there is nothing to keep.
    pub(crate) fn forget(&self) -> Result<(), InflightError> {
        match std::mem::take(&mut *self.lock()).region {
            Some(region) => region.forget_state(),
            None => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Why a backend cannot be driven. The backend is at fault, or the host.
#[derive(Debug, Error)]
pub enum DeviceError {
    /// No queue, or more than a mask can name.
    #[error("the backend has {0} queues; 1 to {MAX_QUEUES} are possible")]
    Queues(usize),
    /// Not a power of two between 1 and 32768 (virtio 1.3, section 2.7).
    #[error("the backend's largest queue size is {0}; it must be a power of two up to 32768")]
    QueueSize(usize),
    /// No worker.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Why a ring that has everything it needs cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its position in memory was refused by the queue implementation.
    #[error(transparent)]
    Queue(#[from] virtio_queue::Error),
    /// It does not go with the record of requests in flight.
    #[error(transparent)]
    Inflight(#[from] InflightError),
    /// Its base is not in it.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// It cannot be read.
    #[error("the ring cannot be read")]
    Memory(#[source] io::Error),
}

/// A backend with everything needed to drive it.
pub struct Device<T: VhostUserBackend> {
    /// The device's implementation.
    pub backend: T,
    /// Guest memory, empty between two sessions.
    pub memory: SharedMemory<T::Bitmap>,
    /// Its threads.
    pub pool: Pool<T>,
    /// The way to the frontend of the moment.
    pub notifier: ConfigNotifier,
    /// Whether its driver has broken it.
    pub needs_reset: NeedsReset,
    vrings: Vec<T::Vring>,
    /// By ring: where its tracker is while it runs.
    records: Vec<Record>,
    /// Whether the backend keeps them where they outlive it.
    tracked: AtomicBool,
    /// One bit a ring: whether the backend takes chains from it while it is disabled.
    discards: AtomicU64,
    /// Where its own state is kept, once there is a place.
    state: StateRecord,
    max_queue_size: u16,
}

impl<T> Device<T>
where
    T: VhostUserBackend + Clone + 'static,
    T::Bitmap: NewBitmap + Clone + Send + Sync,
    T::Vring: Clone + Send + Sync + 'static,
{
    /// Creates the rings and starts the workers.
    pub fn new(backend: T, shutdown: &ShutdownHandle) -> Result<Self, DeviceError> {
        let queues = backend.num_queues();
        if queues == 0 || queues > MAX_QUEUES {
            return Err(DeviceError::Queues(queues));
        }
        let size = backend.max_queue_size();
        let max_queue_size = u16::try_from(size).map_err(|_| DeviceError::QueueSize(size))?;
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let vrings = (0..queues)
            .map(|_| T::Vring::new(memory.clone(), max_queue_size))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| DeviceError::QueueSize(size))?;
        let pool = Pool::new(&backend, &vrings, shutdown)?;
        Ok(Device {
            backend,
            memory,
            pool,
            notifier: ConfigNotifier::default(),
            needs_reset: NeedsReset::default(),
            records: vrings.iter().map(|_| Record::default()).collect(),
            tracked: AtomicBool::new(false),
            discards: AtomicU64::new(0),
            state: StateRecord::default(),
            vrings,
            max_queue_size,
        })
    }
}

impl<T: VhostUserBackend> Device<T> {
    /// Number of rings.
    pub fn queues(&self) -> usize {
        self.vrings.len()
    }

    /// Largest ring size, in entries.
    pub fn max_queue_size(&self) -> u16 {
        self.max_queue_size
    }

    /// The ring as the backend sees it.
    pub fn vring(&self, index: usize) -> &T::Vring {
        &self.vrings[index]
    }

    /// Where the backend registers descriptors of its own with worker `id`.
    pub fn listeners(&self, id: usize) -> Option<Listeners> {
        self.pool.listeners(id)
    }

    /// The progress of `ring` while it runs: the backend reads it, and records in it what it does
    /// with the ring's chains.
    pub fn record(&self, ring: usize) -> Option<Record> {
        self.records.get(ring).cloned()
    }

    /// Where the backend signals that something is wrong with `ring`.
    pub fn error_sign(&self, ring: usize) -> Option<ErrorSign> {
        self.pool.error_sign(ring)
    }

    /// Keeps the thread of worker `id` on one processor.
    pub fn keep_on(&self, id: usize, processor: usize) -> io::Result<()> {
        let kept = self.pool.keep_on(id, processor).map_err(io::Error::other)?;
        kept.map_err(io::Error::other)
    }

    /// The backend keeps the records of all its rings, so that they can be offered to frontends.
    pub fn keep_records(&self) {
        self.tracked.store(true, Ordering::Relaxed);
    }

    /// Whether it does.
    pub fn tracks(&self) -> bool {
        self.tracked.load(Ordering::Relaxed)
    }

    /// The backend gives chains of `ring` back without effect while the ring is ready but not
    /// enabled.
    pub fn discard_disabled(&self, ring: usize) {
        if ring < self.queues() {
            self.discards.fetch_or(1 << ring, Ordering::Relaxed);
        }
    }

    /// Whether it does.
    pub fn discards(&self, ring: usize) -> bool {
        self.discards.load(Ordering::Relaxed) >> ring & 1 == 1
    }

    /// Where the backend stores its own state, as often as the driver changes it.
    pub fn state_record(&self) -> StateRecord {
        self.state.clone()
    }

    /// Replaces guest memory for all rings and tells the backend.
    pub fn replace_memory(&self, memory: GuestMemoryMmap<T::Bitmap>) -> io::Result<()> {
        self.memory
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .replace(memory);
        self.backend.update_memory(self.memory.clone())
    }

    /// Prepares a stopped ring from its setup; the caller then starts it in the pool. The
    /// position that `inflight` has recorded takes precedence over the setup: it was written
    /// while the ring ran.
    pub fn configure(
        &self,
        index: usize,
        ring: &ReadyRing<'_>,
        event_idx: bool,
        inflight: Option<&Arc<Region>>,
    ) -> Result<(), StartError> {
        let vring = self.vring(index);
        // Forgets the previous life of the ring, including counters only reset() can reach.
        vring.get_mut().get_queue_mut().reset();
        if let Some(region) = inflight.filter(|_| ring.begins_again) {
            region.forget_if_idle(index)?;
        }
        if ring.packed {
            self.configure_packed(index, ring, event_idx, inflight)?;
        } else {
            self.configure_split(index, ring, event_idx, inflight)?;
        }
        // In this order: an event of the device's own must not find it ready and disabled before
        // it is known to be.
        vring.set_enabled(ring.enabled);
        vring.set_queue_ready(true);
        Ok(())
    }

    fn configure_split(
        &self,
        index: usize,
        ring: &ReadyRing<'_>,
        event_idx: bool,
        inflight: Option<&Arc<Region>>,
    ) -> Result<(), StartError> {
        let vring = self.vring(index);
        vring.set_queue_size(ring.size);
        vring.set_queue_event_idx(event_idx);
        vring.set_queue_info(ring.descriptors.0, ring.available.0, ring.used.0)?;
        // A split ring's index has 16 bits.
        vring.set_queue_next_avail(ring.base as u16);
        // The protocol carries no used index: guest memory has the only true one.
        let used = vring.queue_used_idx()?;
        vring.set_queue_next_used(used);
        *self.records[index].lock() = Progress::Split(None);
        match inflight {
            Some(region) => self.track(index, region, ring, used),
            None => Ok(()),
        }
    }

    fn configure_packed(
        &self,
        index: usize,
        ring: &ReadyRing<'_>,
        event_idx: bool,
        inflight: Option<&Arc<Region>>,
    ) -> Result<(), StartError> {
        let layout = Layout {
            size: ring.size,
            descriptors: ring.descriptors,
            driver_events: ring.available,
            device_events: ring.used,
            event_idx,
        };
        let mut packed = PackedRing::new(layout, ring.base)?;
        let memory = self.memory.memory();
        packed
            .begin_if_unused(&*memory)
            .map_err(StartError::Memory)?;
        if let Some(region) = inflight {
            let flags = |slot| packed.flags(&*memory, slot);
            let used = packed.used();
            let recovered =
                inflight::packed::Tracker::recover(region, index, ring.size, used, flags);
            if let Some(recovered) = if_it_has_room(index, recovered)? {
                let recovered = recovered.map_err(StartError::Memory)?;
                let left = recovered.left.len();
                tracing::debug!(ring = index, used = ?recovered.used, left, "tracking requests in flight");
                packed.resume(recovered)?;
            }
        }
        *self.records[index].lock() = Progress::Packed(packed);
        Ok(())
    }

    /// Takes over the record of a ring that stands at the used index `used`.
    fn track(
        &self,
        index: usize,
        region: &Arc<Region>,
        ring: &ReadyRing<'_>,
        used: u16,
    ) -> Result<(), StartError> {
        let recovered = Tracker::recover(region, index, ring.size, used);
        let Some((tracker, next_avail)) = if_it_has_room(index, recovered)? else {
            return Ok(());
        };
        let left = tracker.left_count();
        tracing::debug!(ring = index, used, left, "tracking requests in flight");
        self.vring(index)
            .set_queue_next_avail(next_avail.unwrap_or(ring.base as u16));
        *self.records[index].lock() = Progress::Split(Some(tracker));
        Ok(())
    }

    /// Stops rings: when this returns the device does not touch them. Returns for each the base to
    /// resume at. All are waited for at the same time.
    pub fn stop(&self, rings: &[usize]) -> Result<Vec<io::Result<u32>>, WorkerError> {
        for ring in rings {
            self.pool.stop(*ring)?;
        }
        let drained = self.drain(rings).into_iter();
        let bases = rings.iter().zip(drained);
        Ok(bases
            .map(|(ring, drained)| drained.map(|()| self.take_base(*ring)))
            .collect())
    }

    /// A backend that works asynchronously finishes the chains that it has taken from the rings.
    fn drain(&self, rings: &[usize]) -> Vec<io::Result<()>> {
        let backend = &self.backend;
        let drain = |ring: usize| backend.stop_vring(ring as u32);
        let [first, others @ ..] = rings else {
            return Vec::new();
        };
        thread::scope(|scope| {
            let threads = others.iter().map(|ring| {
                let thread = thread::Builder::new().spawn_scoped(scope, move || drain(*ring));
                // No thread can be had: it is waited for here.
                thread.map_err(|_| drain(*ring))
            });
            let threads: Vec<_> = threads.collect();
            let gone = |_| Err(io::Error::other("the device has panicked"));
            let others = threads.into_iter().map(|thread| match thread {
                Ok(thread) => thread.join().unwrap_or_else(gone),
                Err(drained) => drained,
            });
            std::iter::once(drain(*first)).chain(others).collect()
        })
    }

    /// Where a ring that has stopped stands.
    fn take_base(&self, ring: usize) -> u32 {
        // Chains that another backend left and that were not resumed yet are not done.
        let progress = std::mem::take(&mut *self.records[ring].lock());
        match progress {
            Progress::Split(tracker) => {
                let left = tracker.map_or(0, |tracker| tracker.left_count());
                let next = self.vring(ring).queue_next_avail();
                next.wrapping_sub(left).into()
            }
            Progress::Packed(ring) => ring.base(),
        }
    }
}

/// The recovered part of a ring's record, or nothing where the record is for smaller rings.
///
/// QEMU's record has its own queue size, but on virtio-mmio a driver may choose a larger one,
/// as SeaBIOS does. Such a ring works as well as with no record at all.
fn if_it_has_room<R>(
    ring: usize,
    recovered: Result<R, InflightError>,
) -> Result<Option<R>, InflightError> {
    match recovered {
        Err(error @ InflightError::Room { .. }) => {
            warn_limited!(LOG, ring, %error, "requests in flight are not tracked");
            Ok(None)
        }
        recovered => recovered.map(Some),
    }
}
