//! A [`VirtioDevice`] behind the daemon: one worker and one [`Pump`] for each queue, so that no
//! lock is contended on the data path.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserProtocolFeatures,
    VhostUserShMemConfig,
};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::virtio_config::{
    VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use vmm_sys_util::epoll::EventSet;

use crate::daemon::Daemon;
use crate::device::StateRecord;
use crate::drain::SharedPump;
use crate::listeners::Listeners;
use crate::memory::SharedMemory;
use crate::needs_reset::NeedsReset;
use crate::notifier::ConfigNotifier;
use crate::page_log::{GuestRam, PageLog};
use crate::patience::DRAIN_DEADLINE;
use crate::pump::{Pump, Serve};
use crate::ratelimit::RateLimit;
use crate::request::{Finished, Outcome, Request};
use crate::split::IndexError;
use crate::transfer::{Transfer, Transferred};
use crate::virtio::VirtioDevice;
use crate::vring::Vring;
use crate::wakers::Wakers;
use crate::warn_limited;

static LOG: RateLimit = RateLimit::for_logs();

/// Features that the kit implements for every device.
const KIT_FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_F_RING_RESET
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Event of a worker whose turn was cut short or that was woken, counted from the first free one.
const AGAIN: u16 = 0;
/// Event of the descriptor that announces another configuration.
const CONFIG: u16 = 1;
/// The event of all descriptors that the device has for the worker's queue.
const READY: u16 = 2;

/// A [`VirtioDevice`] behind the daemon.
pub struct PumpBackend<D> {
    device: D,
    pumps: Vec<SharedPump>,
    notifier: OnceLock<ConfigNotifier>,
    /// Where the device's state is recorded.
    state: OnceLock<StateRecord>,
    needs_reset: OnceLock<NeedsReset>,
    transfer: Transfer,
    /// The features that the driver has accepted.
    features: AtomicU64,
    /// Event number of [`AGAIN`].
    first_event: u16,
}

impl<D: VirtioDevice> PumpBackend<D> {
    /// One pump per queue.
    pub fn new(device: D) -> io::Result<Self> {
        let queues = device.queues();
        Ok(PumpBackend {
            pumps: (0..queues)
                .map(|_| Ok(SharedPump::new(Pump::new()?)))
                .collect::<io::Result<_>>()?,
            device,
            notifier: OnceLock::new(),
            state: OnceLock::new(),
            needs_reset: OnceLock::new(),
            transfer: Transfer::default(),
            features: AtomicU64::new(0),
            first_event: queues + 1,
        })
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Lets the workers hear of the device. To be called once, before serving.
    pub fn attach(&self, daemon: &Daemon<Arc<Self>>) -> io::Result<()> {
        for queue in 0..self.device.queues() {
            let id = usize::from(queue);
            let gone = || io::Error::other(format!("queue {queue} has no worker"));
            let listeners = daemon.listeners(id).ok_or_else(gone)?;
            let record = daemon.record(id).ok_or_else(gone)?;
            let errors = daemon.error_sign(id).ok_or_else(gone)?;
            self.pump(id)?.configure(|pump| {
                pump.set_record(record);
                pump.set_error_sign(errors);
                pump.set_polling(self.device.poll_time());
                pump.attach(&listeners, self.first_event + AGAIN)
            })?;
            if let Some(processor) = self.device.processor(queue) {
                daemon.keep_on(id, processor)?;
            }
            if self.device.discards_disabled(queue) {
                daemon.discard_disabled(id);
            }
            let edge = EventSet::IN | EventSet::EDGE_TRIGGERED;
            for fd in self.device.events(queue) {
                watch(&listeners, fd, edge, self.first_event + READY)?;
            }
            if queue == 0
                && let Some(fd) = self.device.config_event()
            {
                watch(&listeners, fd, EventSet::IN, self.first_event + CONFIG)?;
            }
        }
        if self.device.resumable() {
            daemon.keep_records();
        }
        self.notifier.get_or_init(|| daemon.config_notifier());
        self.state.get_or_init(|| daemon.state_record());
        self.needs_reset.get_or_init(|| daemon.needs_reset());
        self.device.attached(self.wakers()?);
        Ok(())
    }

    fn wakers(&self) -> io::Result<Wakers> {
        let wakers = self
            .pumps
            .iter()
            .map(|pump| pump.configure(|pump| pump.waker()));
        Ok(Wakers::new(wakers.collect::<io::Result<_>>()?))
    }

    fn pump(&self, id: usize) -> io::Result<&SharedPump> {
        let pump = self.pumps.get(id);
        pump.ok_or_else(|| io::Error::other(format!("no worker {id}")))
    }

    /// Records the device's state, which has changed.
    fn record_state(&self) {
        if let (Some(record), Some(state)) = (self.state.get(), self.device.state())
            && let Err(error) = record.store(&state)
        {
            tracing::error!(%error, "the device's state would be lost with this process");
        }
    }

    /// Has the frontend look at the configuration space and the status.
    fn notify(&self) {
        if let Some(notifier) = self.notifier.get() {
            notifier.notify();
        }
    }
}

/// A queue of the device, for its pump.
struct Queue<'a, D> {
    backend: &'a PumpBackend<D>,
    number: u16,
}

impl<D: VirtioDevice> Serve for Queue<'_, D> {
    fn process(&mut self, memory: &GuestRam, request: &mut Request) -> Outcome {
        request.features = self.backend.features.load(Ordering::Relaxed);
        let device = &self.backend.device;
        let outcome = device.process(self.number, memory, request);
        if std::mem::take(&mut request.has_new_state) {
            self.backend.record_state();
        }
        if std::mem::take(&mut request.has_new_config)
            && let Some(notifier) = self.backend.notifier.get()
        {
            notifier.publish();
        }
        outcome
    }

    fn poll(&mut self, finished: &mut Finished) {
        self.backend.device.poll(self.number, finished);
        if finished.take_new_state() {
            self.backend.record_state();
        }
    }
}

/// Watches `fd`, if epoll can: a file that it cannot watch (EPERM) never makes anybody wait.
fn watch(listeners: &Listeners, fd: RawFd, set: EventSet, event: u16) -> io::Result<()> {
    match listeners.register(fd, set, event) {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

impl<D: VirtioDevice> VhostUserBackend for PumpBackend<D> {
    type Bitmap = PageLog;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.pumps.len()
    }

    fn max_queue_size(&self) -> usize {
        usize::from(self.device.max_queue_size())
    }

    fn features(&self) -> u64 {
        // Only the record tells a killed device's position in a packed ring.
        let packed = u64::from(self.device.resumable()) << VIRTIO_F_RING_PACKED;
        self.device.features() | KIT_FEATURES | packed
    }

    fn acked_features(&self, features: u64) {
        self.features.store(features, Ordering::Relaxed);
        self.device.negotiated(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let mut protocol = VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG;
        if !self.device.shared_memory().is_empty() {
            protocol |= VhostUserProtocolFeatures::SHMEM;
        }
        if self.device.state().is_some() {
            protocol |= VhostUserProtocolFeatures::DEVICE_STATE;
        }
        protocol
    }

    fn set_device_state_fd(
        &self,
        direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        file: File,
    ) -> io::Result<Option<File>> {
        match (direction, self.device.state()) {
            (_, None) => Err(io::ErrorKind::Unsupported.into()),
            (VhostTransferStateDirection::SAVE, Some(state)) => self.transfer.save(state, file),
            (VhostTransferStateDirection::LOAD, Some(_)) => self.transfer.load(file),
        }?;
        Ok(None)
    }

    fn check_device_state(&self) -> io::Result<()> {
        match self.transfer.finish()? {
            Transferred::Saved => Ok(()),
            Transferred::Loaded(state) => self.device.restore(&state).map(|()| {
                // The frontend has read the configuration space already.
                self.notify();
            }),
        }
    }

    fn set_backend_req_fd(&self, frontend: vhost::vhost_user::Backend) {
        self.device.connected(frontend);
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let sizes = self.device.shared_memory();
        let count = sizes.iter().filter(|size| **size != 0).count();
        Ok(VhostUserShMemConfig::new(count as u32, &sizes))
    }

    fn reset_device(&self) {
        self.features.store(0, Ordering::Relaxed);
        self.device.reset();
    }

    fn stop_vring(&self, index: u32) -> io::Result<()> {
        // As many as there are queues.
        let queue = index as u16;
        self.device.stopping(queue);
        let drained = self.pump(index as usize)?.drain(index, DRAIN_DEADLINE);
        self.device.stopped(queue);
        drained
    }

    fn set_event_idx(&self, _enabled: bool) {
        // The vrings know.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let space = self.device.config();
        let start = (offset as usize).min(space.len());
        let end = (offset as usize).saturating_add(size as usize);
        space[start..end.min(space.len())].to_vec()
    }

    fn set_config(&self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        self.device.write_config(offset, bytes)?;
        self.record_state();
        Ok(())
    }

    fn update_memory(&self, memory: SharedMemory<PageLog>) -> io::Result<()> {
        for pump in &self.pumps {
            pump.configure(|pump| pump.set_memory(&memory));
        }
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        (0..self.pumps.len()).map(|queue| 1 << queue).collect()
    }

    /// Each worker has one ring: every event but one is about that ring.
    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        vrings: &[Vring],
        thread_id: usize,
    ) -> io::Result<()> {
        if event == self.first_event + CONFIG {
            if self.device.config_changed() {
                self.notify();
            }
            return Ok(());
        }
        let Some(vring) = vrings.first() else {
            return Ok(());
        };
        let number = thread_id as u16;
        let backend = self;
        let ran = self.pump(thread_id)?.run(vring, Queue { backend, number });
        // A bad ring is the driver's fault, not the device's, whatever event it was: the
        // device keeps getting all events, for the driver's next life.
        if let Err(error) = ran {
            warn_limited!(LOG, queue = number, %error, "the ring cannot be processed");
            let needs_reset = self.needs_reset.get();
            // A driver that has lost its place in the ring does not find it again.
            if IndexError::is_cause_of(&error) && needs_reset.is_some_and(NeedsReset::set) {
                self.notify();
            }
        }
        Ok(())
    }
}
