//! The interface of a transport to the device behind it.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use vhost_user_wire::DeviceType;
use vmm_sys_util::eventfd::EventFd;

use super::kick::Kick;
use super::queue::QueueConfig;
use super::shared_memory::SharedRegion;
use crate::deadline::Deadline;

/// Why a device could not do what the transport asked. Its text says what
/// happened; the transport adds which device it happened to.
pub type DeviceError = Box<dyn std::error::Error + Send + Sync>;

/// The meaning of an event on a device's descriptor.
#[derive(Debug)]
pub enum DeviceEvent {
    /// Nothing that the guest needs to know.
    Nothing,
    /// The device configuration space has other contents now.
    ConfigChanged,
    /// The device no longer works, and why. Reported once a breakage.
    Broken(DeviceError),
}

/// The device behind a transport.
///
/// The transport calls [`activate`](Self::activate) once a handshake, then
/// starts the queues that the driver configured, calls [`begin`](Self::begin), and
/// stops every queue that it started before the next handshake. All calls come with
/// the transport's lock held, possibly on a vCPU thread. Those that belong to one access of
/// the guest share a [`Deadline`] of [`patience`](Self::patience), by which their waits end.
pub trait Device: Send {
    fn device_type(&self) -> DeviceType;

    /// How long one access of the guest may wait for the device.
    fn patience(&self) -> Duration {
        Duration::ZERO
    }

    /// The largest size of each queue, in entries. Its length is the number of
    /// queues, and does not change.
    fn queue_max_sizes(&self) -> &[u16];

    /// The device's features (virtio 1.3, section 2.2), one bit each. The
    /// transport withholds from the driver those that it cannot support itself.
    /// It asks again at each reset: a device may have lost some.
    fn features(&self) -> u64;

    /// Takes the features that the driver accepted, a subset of
    /// [`features`](Self::features). No queue runs.
    fn activate(&mut self, features: u64, deadline: &Deadline) -> Result<(), DeviceError>;

    /// Starts a stopped queue. `kick` tells of the driver's kicks, those from before
    /// included; a write to `call` interrupts the driver.
    ///
    /// On an error the queue counts as stopped.
    fn start_queue(
        &mut self,
        index: u16,
        queue: &QueueConfig,
        kick: &Arc<Kick>,
        call: &EventFd,
        deadline: &Deadline,
    ) -> Result<(), DeviceError>;

    /// The driver is ready, and the queues that it set up for that are started. Others
    /// may follow.
    fn begin(&mut self, _deadline: &Deadline) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Stops these queues. Afterwards the device touches neither their rings nor their
    /// buffers. Requests in flight are finished first, as far as they end by themselves,
    /// which may take longer than `deadline`. On an error the queues count as stopped
    /// too. Stopping a queue that is not running, or one of a device that is broken, does
    /// nothing.
    fn stop_queues(&mut self, queues: &[u16], deadline: &Deadline) -> Result<(), DeviceError>;

    /// All of the device configuration space (virtio 1.3, section 2.5).
    fn read_config(&mut self, deadline: &Deadline) -> Result<Vec<u8>, DeviceError>;

    /// The driver can read the configuration space that
    /// [`read_config`](Self::read_config) gave last.
    fn config_published(&mut self) {}

    /// The driver wrote `data` at `offset` of the configuration space.
    fn write_config(
        &mut self,
        offset: u32,
        data: &[u8],
        deadline: &Deadline,
    ) -> Result<(), DeviceError>;

    /// The device's shared memory regions. They stay the same for its lifetime.
    fn shared_memory(&self) -> &[SharedRegion] {
        &[]
    }

    /// The driver reset the device. All queues are stopped already.
    fn reset(&mut self, deadline: &Deadline);

    /// A descriptor that is readable when [`handle_event`](Self::handle_event)
    /// has something to do. It stays the same for the device's lifetime.
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Handles the event that made [`event_fd`](Self::event_fd) readable.
    fn handle_event(&mut self, _deadline: &Deadline) -> DeviceEvent {
        DeviceEvent::Nothing
    }
}

impl fmt::Debug for dyn Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.device_type())
    }
}
