//! Helpers of the unit tests: a device that only records, and guest memory in a file.

use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::event::EventfdFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringT};
use vm_memory::{GuestAddress, GuestMemoryAtomic};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

use crate::memory::SharedMemory;
use crate::page_log::{GuestRam, PageLog};
use crate::vring::Vring;

pub const DEADLINE: Duration = Duration::from_secs(10);

/// An anonymous file of `len` bytes.
pub fn memfd(len: u64) -> File {
    let file = File::from(memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

/// An eventfd as the file that a message carries.
pub fn eventfd() -> File {
    let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
    File::from(rustix::event::eventfd(0, flags).unwrap())
}

/// A ring of `size` entries that is ready and enabled, with its descriptors at 0, in memory of
/// its own.
pub fn enabled_ring(size: u16, avail: u64, used: u64) -> (SharedMemory<PageLog>, Vring) {
    let map = GuestRam::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    let memory = GuestMemoryAtomic::new(map);
    let vring = Vring::new(memory.clone(), size).unwrap();
    vring.set_queue_size(size);
    vring.set_queue_info(0, avail, used).unwrap();
    vring.set_queue_ready(true);
    vring.set_enabled(true);
    (memory, vring)
}

/// Waits until `fd` can be read.
pub fn readable(fd: RawFd) -> bool {
    let epoll = Epoll::new().unwrap();
    epoll
        .ctl(ControlOperation::Add, fd, EpollEvent::new(EventSet::IN, 0))
        .unwrap();
    let end = Instant::now() + DEADLINE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let mut events = [EpollEvent::default()];
        match epoll.wait(left.as_millis() as i32, &mut events) {
            // By the requests of an io_uring that this thread has had.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
            count => return count.unwrap() == 1,
        }
    }
}

/// A device that reports the calls to it to a test.
pub struct Recorder {
    pub features: u64,
    pub queues: usize,
    pub config: Vec<u8>,
    /// By worker: its rings.
    pub masks: Vec<u64>,
    pub acked: AtomicU64,
    pub event_idx: AtomicBool,
    pub resets: AtomicUsize,
    pub stops: Mutex<Vec<u32>>,
    /// Makes `handle_event` and `stop_vring` fail.
    pub failing: AtomicBool,
    pub memory: Mutex<Option<SharedMemory<PageLog>>>,
    pub written: Mutex<Vec<(u32, Vec<u8>)>>,
    /// Held by a test to keep `handle_event` from returning.
    pub gate: Mutex<()>,
    pub exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
    events: Sender<(u16, usize)>,
}

impl Recorder {
    /// A device with `queues` queues and one worker for each.
    pub fn new(queues: usize) -> (Arc<Self>, Events) {
        let (events, receiver) = channel();
        let recorder = Recorder {
            features: 1 << 32 | 1 << 29,
            queues,
            config: vec![1, 2, 3, 4],
            masks: (0..queues).map(|q| 1 << q).collect(),
            acked: AtomicU64::default(),
            event_idx: AtomicBool::default(),
            resets: AtomicUsize::default(),
            stops: Mutex::default(),
            failing: AtomicBool::default(),
            memory: Mutex::default(),
            written: Mutex::default(),
            gate: Mutex::default(),
            exit: Mutex::default(),
            events,
        };
        (Arc::new(recorder), Events(receiver))
    }

    /// Gives worker 0 an exit event of the device's own and returns the trigger.
    pub fn with_exit_event(&self) -> EventNotifier {
        let (consumer, notifier) =
            new_event_consumer_and_notifier(EventFlag::NONBLOCK | EventFlag::CLOEXEC).unwrap();
        let trigger = notifier.try_clone().unwrap();
        *self.exit.lock().unwrap() = Some((consumer, notifier));
        trigger
    }

    fn outcome(&self) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            return Err(io::Error::other("told to fail"));
        }
        Ok(())
    }
}

/// The events that a [`Recorder`] was asked to handle: event number and worker.
pub struct Events(Receiver<(u16, usize)>);

impl Events {
    pub fn next(&self) -> (u16, usize) {
        self.0.recv_timeout(DEADLINE).expect("an event")
    }

    pub fn none(&self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl VhostUserBackend for Recorder {
    type Bitmap = PageLog;
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.queues
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn acked_features(&self, features: u64) {
        self.acked.store(features, Ordering::SeqCst);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
    }

    fn reset_device(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }

    fn set_event_idx(&self, enabled: bool) {
        self.event_idx.store(enabled, Ordering::SeqCst);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let rest = self.config.iter().skip(offset as usize);
        rest.take(size as usize).copied().collect()
    }

    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        self.outcome()?;
        self.written.lock().unwrap().push((offset, buf.to_vec()));
        Ok(())
    }

    fn update_memory(&self, memory: SharedMemory<PageLog>) -> io::Result<()> {
        *self.memory.lock().unwrap() = Some(memory);
        Ok(())
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        self.masks.clone()
    }

    fn exit_event(&self, thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().unwrap().take().filter(|_| thread == 0)
    }

    fn stop_vring(&self, queue: u32) -> io::Result<()> {
        self.stops.lock().unwrap().push(queue);
        self.outcome()
    }

    fn handle_event(
        &self,
        event: u16,
        _set: EventSet,
        _vrings: &[Vring],
        thread: usize,
    ) -> io::Result<()> {
        let _ = self.events.send((event, thread));
        let _gate = self.gate.lock().unwrap();
        self.outcome()
    }
}
