//! Why does a device hang? Pictures of the devices of a machine that runs, for [`diagnosis`].
//!
//! Nothing here stops a vCPU, asks a backend or changes what is looked at: registers are the
//! transport's, rings are read from guest memory, kicks from the kernel's counter, and the
//! backend's threads from `/proc`. A device whose backend is being waited for is only said to be
//! busy.

use std::thread;
use std::time::Duration;

use devices::virtio::counters::{QueueInfo, TransportInfo};
use devices::virtio::features::{EVENT_IDX, NET_MQ};
use devices::virtio::{DeviceType, Format, GuestMemory, QueueConfig};
use diagnosis::{Backend, Device, Driver, Look, Queue, QueueState, process};
use gdb::inspect::Virtqueue;
use gdb::ring_look;
use gdb::target::{PhysAddr, TargetError};
use vm_memory::{Bytes, GuestAddress};

use crate::transports::SharedTransport;

/// Between the two looks: much longer than a notification takes to arrive.
const APART: Duration = Duration::from_millis(300);
/// How long a device may be in use before it counts as busy.
const PATIENCE: Duration = Duration::from_millis(500);
/// InterruptStatus of a configuration change (virtio 1.4, section 4.2.2).
const CONFIG_CHANGE: u32 = 2;

/// Looks twice at each device, and says what is wrong. The guest's driver and the backends work
/// meanwhile.
pub fn explain(transports: &[SharedTransport], memory: &GuestMemory) -> Vec<Device> {
    let look = |shared: &SharedTransport| Snapshot::take(shared, memory);
    let before: Vec<_> = transports.iter().map(look).collect();
    thread::sleep(APART);
    let pairs = transports.iter().zip(before);
    let mut devices: Vec<_> = pairs
        .map(|(shared, before)| picture(shared, before, look(shared)))
        .collect();
    devices.iter_mut().for_each(Device::diagnose);
    devices
}

/// A device at one moment.
struct Snapshot {
    info: TransportInfo,
    queues: Vec<QueueSnapshot>,
}

struct QueueSnapshot {
    look: Look,
    /// The eventfd of its kicks.
    kick: Option<u64>,
    errors: u64,
    stalled: Duration,
}

impl Snapshot {
    /// `None` when the device is busy.
    fn take(shared: &SharedTransport, memory: &GuestMemory) -> Option<Self> {
        let mut transport = shared.lock_within(PATIENCE)?;
        let info = transport.info();
        let event_idx = info.chosen & EVENT_IDX != 0;
        let queues = (0..).zip(&info.queues).map(|(index, queue)| {
            let ready = queue.ready.as_ref();
            let health = shared.backend().queue_health(index);
            let kick = ready.and_then(|_| transport.kick_counter(index));
            QueueSnapshot {
                look: Look {
                    ring: ready.and_then(|queue| ring(queue, event_idx, memory)),
                    unread_kicks: kick.map(|kick| kick.signals),
                    taken: shared.backend().taken(index),
                },
                kick: kick.and_then(|kick| kick.id),
                errors: health.errors,
                stalled: health.stalled,
            }
        });
        let queues = queues.collect();
        Some(Self { info, queues })
    }
}

fn ring(queue: &QueueConfig, event_idx: bool, memory: &GuestMemory) -> Option<diagnosis::Ring> {
    let queue = Virtqueue {
        packed: queue.format == Format::Packed,
        size: queue.size,
        descriptors: PhysAddr(queue.descriptors.0),
        available: PhysAddr(queue.available.0),
        used: PhysAddr(queue.used.0),
    };
    let read = |addr: PhysAddr, buf: &mut [u8]| {
        let read = memory.read_slice(buf, GuestAddress(addr.0));
        read.map_err(|_| TargetError::NoRam(addr))
    };
    ring_look::look(&queue, event_idx, &read).ok()
}

fn picture(shared: &SharedTransport, before: Option<Snapshot>, now: Option<Snapshot>) -> Device {
    let id = shared.id().to_owned();
    let backend = backend(shared);
    let Some(now) = now else {
        return Device {
            id,
            about: "busy".into(),
            backend: Some(backend),
            is_busy: true,
            ..Device::default()
        };
    };
    let info = now.info;
    let watches = watches(shared);
    let before = before.filter(|before| before.info.counters.resets == info.counters.resets);
    let had_change = before
        .as_ref()
        .is_some_and(|before| is_changed(&before.info));
    let driver = Driver {
        status: Some(info.status.clone()),
        interrupt_status: info.interrupt_status,
        ignores_config_change: had_change && is_changed(&info),
        acknowledged: Some(info.counters.interrupts_acknowledged),
    };
    let earlier = before.map_or_else(Vec::new, |before| before.queues);
    let mut earlier = earlier.into_iter().map(|queue| queue.look);
    let queues = (0..).zip(now.queues).zip(&info.queues);
    let queues = queues.map(|((number, queue), queue_info)| Queue {
        number,
        state: state(queue_info),
        is_filled_ahead: is_filled_ahead(&info, number),
        errors: queue.errors,
        stalled: nanoseconds(queue.stalled),
        is_edge_triggered: queue.kick.and_then(|kick| watches.get(&kick).copied()),
        now: queue_info.ready.map(|_| queue.look),
        before: earlier.next().filter(|_| queue_info.ready.is_some()),
        ..Queue::default()
    });
    Device {
        id,
        about: about(&info),
        driver,
        backend: Some(backend),
        queues: queues.collect(),
        apart: nanoseconds(APART),
        ..Device::default()
    }
}

fn about(info: &TransportInfo) -> String {
    let status = match &*info.status {
        "" => "0",
        status => status,
    };
    format!(
        "{}, status {status}, {} interrupts acknowledged",
        info.device_type, info.counters.interrupts_acknowledged
    )
}

fn is_changed(info: &TransportInfo) -> bool {
    info.interrupt_status & CONFIG_CHANGE != 0
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(u64::MAX)
}

fn state(queue: &QueueInfo) -> QueueState {
    match (queue.ready, queue.running) {
        (None, _) => QueueState::NotSetUp,
        (Some(_), false) => QueueState::Stopped,
        (Some(_), true) => QueueState::Running,
    }
}

/// A network device's control queue is behind all pairs of queues, and behind the first where the
/// driver has not taken VIRTIO_NET_F_MQ (virtio 1.4, section 5.1.2).
fn is_filled_ahead(info: &TransportInfo, queue: u16) -> bool {
    let has_pairs = info.chosen & NET_MQ != 0;
    let last = info.queues.len() as u16 - 1;
    let control = match (info.device_type, has_pairs) {
        (DeviceType::NET, true) => Some(last).filter(|last| last.is_multiple_of(2)),
        (DeviceType::NET, false) => Some(2),
        _ => None,
    };
    diagnosis::is_filled_ahead(info.device_type.id(), queue, control)
}

/// How the backend waits for eventfds.
fn watches(shared: &SharedTransport) -> process::Watches {
    let backend = shared.backend().backend_status().get();
    let watches = backend
        .pid
        .map(|pid| process::watches(pid, backend.is_supervised));
    watches.unwrap_or_default()
}

fn backend(shared: &SharedTransport) -> Backend {
    let backend = shared.backend().backend_status().get();
    let threads = backend
        .pid
        .map(|pid| process::threads(pid, backend.is_supervised));
    Backend {
        address: backend.address,
        is_connected: backend.connected,
        problem: backend.problem,
        pid: backend.pid,
        threads: threads.unwrap_or_default(),
    }
}
