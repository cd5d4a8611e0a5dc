//! What is known of a device. `None` stands for what is not known.

use serde::{Deserialize, Serialize};

/// A device, with its driver and its backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub id: String,
    /// Its type and state, in words.
    pub about: String,
    pub driver: Driver,
    pub backend: Option<Backend>,
    pub queues: Vec<Queue>,
    /// How far apart the two looks at the queues were, in nanoseconds.
    pub apart: u64,
    /// Requests on the socket that were not answered.
    pub unanswered: Vec<Unanswered>,
    /// An access of the guest, or a command, has been waiting for the backend: nothing more could
    /// be seen.
    pub is_busy: bool,
    pub diagnoses: Vec<String>,
}

/// What the driver and the transport have agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// The status register in names (virtio 1.4, section 2.1).
    pub status: Option<String>,
    /// InterruptStatus.
    pub interrupt_status: u32,
    /// The driver has not acknowledged a change of the configuration through both looks.
    pub ignores_config_change: bool,
    /// Interrupts for used buffers that the driver has acknowledged, since the machine started.
    pub acknowledged: Option<u64>,
}

/// The process behind the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// How it is reached.
    pub address: String,
    pub is_connected: bool,
    /// Why it is not.
    pub problem: Option<String>,
    pub pid: Option<u32>,
    /// Those of its process; of its process group where the machine has started it.
    pub threads: Vec<Thread>,
}

/// A thread as `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    pub id: u32,
    pub name: String,
    /// The letter of proc_pid_stat(5): R, S, D, T, t, Z, X.
    pub state: char,
    /// The function of the kernel that it waits in, where the kernel tells.
    pub waits_in: Option<String>,
}

/// A request on the socket that was not answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unanswered {
    /// Who should have.
    pub by: String,
    pub what: String,
    /// In nanoseconds.
    pub age: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueState {
    #[default]
    NotSetUp,
    /// The device does not work on it.
    Stopped,
    /// It was started, and is not enabled (SET_VRING_ENABLE).
    Disabled,
    Running,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    pub number: u16,
    pub state: QueueState,
    /// See [`is_filled_ahead`](crate::is_filled_ahead).
    pub is_filled_ahead: bool,
    /// Errors that the backend has reported on it.
    pub errors: u64,
    /// The backend waits for kicks by an edge-triggered epoll, which does not read them. `None`
    /// where it waits otherwise, or cannot be looked at.
    pub is_edge_triggered: Option<bool>,
    /// For how long it is known that requests have waited with nothing finished, in nanoseconds.
    pub stalled: u64,
    /// The last look at it, and one before.
    pub now: Option<Look>,
    pub before: Option<Look>,
    /// What has passed in a trace.
    pub seen: Option<Seen>,
    pub diagnoses: Vec<String>,
}

/// One look at a queue of a machine that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Its memory, unless it cannot be read.
    pub ring: Option<Ring>,
    /// Signals of the kick eventfd that nobody has read.
    pub unread_kicks: Option<u64>,
    /// Requests that the backend has taken and not finished, by its record of requests in flight.
    pub taken: Option<u32>,
}

/// A queue's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    pub size: u16,
    /// Of a split ring; a packed one has none in memory.
    pub indices: Option<Indices>,
    /// When the driver wants to be interrupted.
    pub interrupts: Wish,
    /// When the device wants to be kicked.
    pub kicks: Wish,
    /// The driver has made something available since the queue was set up.
    pub is_touched: bool,
    /// The device has used something.
    pub has_used: bool,
    /// Changes when the contents do.
    pub digest: u64,
    /// What no device can make sense of.
    pub broken: Vec<String>,
}

/// The indices of a split ring (section 2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Indices {
    pub available: u16,
    pub used: u16,
}

/// When one side wants to be notified by the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    #[default]
    Always,
    Never,
    /// Split: when the index of the other passes this one (used_event, avail_event; section
    /// 2.7.7).
    AtIndex(u16),
    /// Packed: when the other gets to this entry with this wrap counter (section 2.8.10).
    AtEntry(u16, bool),
    /// Packed: flags that are reserved.
    Reserved(u16),
}

/// What has passed in a trace. Times are ages at its end, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub kicks: u64,
    pub calls: u64,
    pub chains: u64,
    pub used: u64,
    pub last_kick: Option<u64>,
    pub last_call: Option<u64>,
    pub last_used: Option<u64>,
    pub in_flight: u64,
    pub oldest: Option<Oldest>,
}

/// The request that has waited longest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oldest {
    /// In nanoseconds.
    pub age: u64,
    pub what: String,
}

impl Indices {
    /// Chains that the driver has given and the device has not returned.
    pub fn in_flight(self) -> u16 {
        self.available.wrapping_sub(self.used)
    }
}

impl Ring {
    /// Chains in flight, where the ring tells and is not broken.
    pub fn in_flight(&self) -> Option<u16> {
        let count = self.indices?.in_flight();
        (count <= self.size).then_some(count)
    }
}

impl Queue {
    pub fn ring(&self) -> Option<&Ring> {
        self.now.as_ref()?.ring.as_ref()
    }

    /// Requests that the device has not finished.
    pub fn in_flight(&self) -> Option<u64> {
        if let Some(seen) = &self.seen {
            return Some(seen.in_flight);
        }
        let look = self.now.as_ref()?;
        let by_ring = look.ring.as_ref().and_then(Ring::in_flight).map(u64::from);
        by_ring.or(look.taken.map(u64::from))
    }

    /// Nothing happened between the two looks.
    pub fn is_still(&self) -> bool {
        let ring = |look: &Option<Look>| look.as_ref()?.ring.clone();
        let (before, now) = (ring(&self.before), ring(&self.now));
        before.is_some() && before == now
    }

    /// Chains that the device has finished between the two looks.
    pub fn finished(&self) -> u16 {
        let used = |look: &Option<Look>| Some(look.as_ref()?.ring.as_ref()?.indices?.used);
        match (used(&self.before), used(&self.now)) {
            (Some(before), Some(now)) => now.wrapping_sub(before),
            _ => 0,
        }
    }
}
