//! Devices of the machine: the bus, legacy devices, the virtio-mmio transport
//! and the vhost-user frontend behind it.
//!
//! This crate must not know KVM: it reaches the hypervisor through
//! [`hypervisor::Hypervisor`] only.

pub mod bus;
pub mod file_mapping;
pub mod hypervisor;
pub mod power;
pub mod pvpanic;
pub mod rtc;
pub mod serial;
pub mod vhost_user;
pub mod virtio;

pub use vhost_user_wire::deadline;
