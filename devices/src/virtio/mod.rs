//! virtio over MMIO (virtio 1.3, section 4.2).
//!
//! [`mmio::MmioTransport`] is the half of a device that the guest sees: the
//! register window, the driver handshake and the queue addresses. The other
//! half implements [`Device`], whose shape is that of vhost-user: features are
//! agreed once, then single queues start and stop. Neither half walks a ring.

mod config_space;
pub mod counters;
mod device;
#[cfg(test)]
pub(crate) mod fakes;
mod fault_log;
pub mod features;
mod interrupts;
pub mod kick;
mod memory;
pub mod mmio;
pub mod page;
pub mod queue;
mod queues;
pub(crate) mod rate_limit;
pub mod shared_memory;
pub mod spec;
pub mod status;

pub use device::{Device, DeviceError, DeviceEvent};
pub use kick::Kick;
pub use memory::GuestMemory;
pub use mmio::MmioTransport;
pub use queue::{Format, QueueConfig};
pub use shared_memory::SharedRegion;
pub use vhost_user_wire::DeviceType;
