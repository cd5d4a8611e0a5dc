//! A device and the ways to it: one for the transport, one for the user's commands.
//!
//! A transport knows its device by [`Device`] alone. What only a device in another process
//! has (a process that comes and goes, errors that it reports, rings that can be paused
//! behind the driver's back, a log of the pages that it writes) is reached through a
//! [`Handle`] beside the transport.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use super::events::Events;
use super::frontend::{Frontend, QueueHealth};
use super::link::backend_status::BackendStatus;
use crate::deadline::Deadline;
use crate::virtio::{
    Device, DeviceError, DeviceEvent, DeviceType, Kick, MmioTransport, QueueConfig, SharedRegion,
};

/// A [`Frontend`] as a transport's device.
///
/// It keeps what stays the same for the device's lifetime, all else is behind the lock.
struct Shared {
    device_type: DeviceType,
    patience: Duration,
    queue_sizes: Vec<u16>,
    shared_memory: Vec<SharedRegion>,
    events: Arc<Events>,
    frontend: Arc<Mutex<Frontend>>,
}

/// A [`Frontend`] as commands of the user reach it.
///
/// What may break the device takes its transport, which then tells the driver.
#[derive(Clone)]
pub struct Handle {
    backend_status: Arc<BackendStatus>,
    frontend: Arc<Mutex<Frontend>>,
}

/// The device for a transport, and the handle to keep beside it.
pub fn share(frontend: Frontend) -> (Box<dyn Device>, Handle) {
    let backend_status = frontend.backend_status().clone();
    let shared = Shared {
        device_type: frontend.device_type(),
        patience: frontend.patience(),
        queue_sizes: frontend.queue_max_sizes().to_vec(),
        shared_memory: frontend.shared_memory().to_vec(),
        events: frontend.events().clone(),
        frontend: Arc::new(Mutex::new(frontend)),
    };
    let handle = Handle {
        backend_status,
        frontend: shared.frontend.clone(),
    };
    (Box::new(shared), handle)
}

fn lock(frontend: &Mutex<Frontend>) -> MutexGuard<'_, Frontend> {
    frontend.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// The process behind the device. It can be waited for without a lock.
    pub fn backend_status(&self) -> &Arc<BackendStatus> {
        &self.backend_status
    }

    /// The queue's state at its backend.
    pub fn queue_health(&self, index: u16) -> QueueHealth {
        lock(&self.frontend).queue_health(index)
    }

    /// How many requests of the queue the backend has taken and not finished, where it keeps a
    /// record that can be read.
    pub fn taken(&self, index: u16) -> Option<u32> {
        lock(&self.frontend).taken(index)
    }

    /// Ends the process behind the device and has another one take its place.
    /// The driver's requests wait meanwhile. Returns when the old one serves no
    /// more; the new one is there when [`backend_status`](Self::backend_status) says so.
    ///
    /// An error is a refusal: all is as before.
    pub fn replace_backend(&self, transport: &mut MmioTransport) -> Result<(), DeviceError> {
        let event = lock(&self.frontend).replace()?;
        transport.on_event(&event);
        Ok(())
    }

    /// Disconnects the backend, and looks for none until [`reconnect`](Self::reconnect). The
    /// driver's requests wait meanwhile. One that was started from here is asked to end.
    ///
    /// An error is a refusal: all is as before.
    pub fn disconnect(&self, transport: &mut MmioTransport) -> Result<(), DeviceError> {
        let event = lock(&self.frontend).disconnect()?;
        transport.on_event(&event);
        Ok(())
    }

    /// Looks for a backend again after [`disconnect`](Self::disconnect). It is there when
    /// [`backend_status`](Self::backend_status) says so.
    ///
    /// An error is a refusal: all is as before.
    pub fn reconnect(&self) -> Result<(), DeviceError> {
        Ok(lock(&self.frontend).reconnect()?)
    }

    /// Stops all queues that run, until [`unpause`](Self::unpause): meanwhile the device
    /// touches neither them nor their buffers. The guest is stopped.
    pub fn pause(&self, transport: &mut MmioTransport) {
        let event = lock(&self.frontend).pause_rings();
        transport.on_event(&event);
    }

    /// Resumes the queues that [`pause`](Self::pause) stopped.
    pub fn unpause(&self, transport: &mut MmioTransport) {
        let event = lock(&self.frontend).resume_rings();
        transport.on_event(&event);
    }

    /// Has the process behind the device note which pages of guest memory it writes,
    /// from here on, or no longer. An error is a refusal: all is as before.
    pub fn set_dirty_log(
        &self,
        transport: &mut MmioTransport,
        wanted: bool,
    ) -> Result<(), DeviceError> {
        let event = lock(&self.frontend).log_writes(wanted)?;
        transport.on_event(&event);
        Ok(())
    }

    /// Guest-physical addresses of the pages that it has written since this was asked
    /// last, in runs; `None` when they are not noted.
    pub fn dirty_pages(&self) -> Option<Vec<Range<u64>>> {
        lock(&self.frontend).written_pages()
    }
}

impl Device for Shared {
    fn device_type(&self) -> DeviceType {
        self.device_type
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn queue_max_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        lock(&self.frontend).features()
    }

    fn activate(&mut self, features: u64, deadline: &Deadline) -> Result<(), DeviceError> {
        lock(&self.frontend).activate(features, deadline)
    }

    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &Arc<Kick>,
        call: &EventFd,
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        lock(&self.frontend).start_queue(index, queue, kick, call, deadline)
    }

    fn begin(&mut self, deadline: &Deadline) -> Result<(), DeviceError> {
        lock(&self.frontend).begin(deadline)
    }

    fn stop_queues(&mut self, queues: &[u16], deadline: &Deadline) -> Result<(), DeviceError> {
        lock(&self.frontend).stop_queues(queues, deadline)
    }

    fn read_config(&mut self, deadline: &Deadline) -> Result<Vec<u8>, DeviceError> {
        lock(&self.frontend).read_config(deadline)
    }

    fn config_published(&mut self) {
        lock(&self.frontend).config_published();
    }

    fn write_config(
        &mut self,
        offset: u32,
        data: &[u8],
        deadline: &Deadline,
    ) -> Result<(), DeviceError> {
        lock(&self.frontend).write_config(offset, data, deadline)
    }

    fn shared_memory(&self) -> &[SharedRegion] {
        &self.shared_memory
    }

    fn reset(&mut self, deadline: &Deadline) {
        lock(&self.frontend).reset(deadline);
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn handle_event(&mut self, deadline: &Deadline) -> DeviceEvent {
        lock(&self.frontend).handle_event(deadline)
    }
}
