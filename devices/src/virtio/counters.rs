//! The state of a transport for others to see.

use super::{DeviceType, QueueConfig};

/// Events of one transport since the VMM started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads that exited to user space. 0 with a mapped register page.
    pub read_exits: u64,
    /// Writes that exited to user space.
    pub write_exits: u64,
    /// Of these, queue notifications; 0 with ioeventfds.
    pub notify_exits: u64,
    /// Interrupts for used buffers that the driver acknowledged.
    pub interrupts_acknowledged: u64,
    /// Configuration changes announced to the driver, NEEDS_RESET included.
    pub config_interrupts: u64,
    /// Resets by the driver or the machine.
    pub resets: u64,
}

/// One queue as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    pub max_size: u16,
    /// The driver's configuration, once it has set QueueReady.
    pub ready: Option<QueueConfig>,
    /// Whether the device works on it.
    pub running: bool,
}

/// A transport and its device as they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportInfo {
    pub id: String,
    pub device_type: DeviceType,
    /// The status register in names.
    pub status: String,
    /// InterruptStatus.
    pub interrupt_status: u32,
    /// The device's features that the transport lets through, in names.
    pub features_offered: Vec<String>,
    /// The driver's choice.
    pub chosen: u64,
    /// The same in names.
    pub features_chosen: Vec<String>,
    pub queues: Vec<QueueInfo>,
    pub counters: Counters,
}
