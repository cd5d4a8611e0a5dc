//! Backends that have requests of their own answered before they answer the frontend.

mod support;

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use devices::vhost_user::shared_memory::SharedMemory;
use devices::vhost_user::{Frontend, Options, Reconnect};
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use devices::virtio::{DeviceType, SharedRegion};
use support::requests::{PAGE, Request};
use support::scripted::{Answer, CONFIG, FEATURES, MQ, REPLY_ACK, Scripted};
use support::{Buffer, Machine, Ring, Wiring};
use vhost::vhost_user::message::FrontendReq::{self, *};
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use vm_memory::GuestAddress;

/// Where the device's region is, and how many pages it has.
const WINDOW: u64 = 1 << 40;
const PAGES: u64 = 16;
/// Long enough for a busy machine: what takes so long waits for ever.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// A device with a region of shared memory, whose driver is ready.
struct Bench {
    machine: Machine,
    backend: Scripted,
    ring: Ring,
    window: Arc<Wiring>,
}

impl Bench {
    fn new(message: FrontendReq, answer: Answer, deadline: Duration) -> Self {
        let own = Protocol::BACKEND_REQ | Protocol::SHMEM;
        let driver = Protocol::STATUS | Protocol::RESET_DEVICE;
        let protocol = MQ | REPLY_ACK | CONFIG | (own | driver).bits();
        let sizes = [1, PAGES * PAGE].map(u64::to_ne_bytes).concat();
        let answers = [
            (GET_SHMEM_CONFIG, Answer::Payload(sizes)),
            (message, answer),
        ];
        let backend = Scripted::start(FEATURES, protocol, answers);
        let options = Options {
            deadline,
            reconnect: Reconnect::Off,
            ..Options::new("dut", DeviceType::FS, &backend.socket)
        };
        let memory = support::shared_memory();
        let mut frontend = Frontend::connect(options, memory.clone()).unwrap();
        let window = Arc::new(Wiring::default());
        let region = SharedRegion {
            id: 0,
            base: GuestAddress(WINDOW),
            len: PAGES * PAGE,
        };
        let memory_of_device = SharedMemory::new(window.clone(), vec![region]).unwrap();
        frontend.give_shared_memory(memory_of_device).unwrap();
        let mut bench = Self {
            machine: Machine::new(frontend, memory),
            backend,
            ring: Ring::new(0, 0x4000),
            window,
        };
        bench.bring_up();
        bench
    }

    fn bring_up(&mut self) {
        let ring = std::slice::from_mut(&mut self.ring);
        self.machine.bring_up(u64::MAX, ring);
        assert!(!self.is_broken());
    }

    fn is_broken(&mut self) -> bool {
        self.machine.has_status(Status::NEEDS_RESET)
    }

    /// The pages of the region where something is mapped.
    fn mapped(&self) -> Vec<u64> {
        let mapped = self.window.mapped.lock().unwrap();
        mapped.keys().map(|at| (at - WINDOW) / PAGE).collect()
    }

    fn stop(&mut self, by: Stop) {
        match by {
            Stop::Pause => self.machine.pause(),
            Stop::Reset => {
                self.machine.write(Register::Status, 0);
                assert_eq!(self.machine.read(Register::Status), 0);
            }
        }
    }

    /// How often `message` came, once the frontend is gone.
    fn count(self, message: FrontendReq) -> usize {
        drop(self.machine);
        let received = self.backend.finish();
        let those = received.iter().filter(|said| said.request == message);
        those.count()
    }
}

/// What has a queue stopped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Pause,
    Reset,
}

fn page() -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(PAGE).unwrap();
    Arc::new(file)
}

#[test]
fn a_backend_may_map_before_it_has_stopped_a_queue() {
    let file = page();
    for (by, left) in [(Stop::Pause, vec![1]), (Stop::Reset, vec![])] {
        let wishes = vec![
            Request::map(0, &file),
            Request::map(1, &file),
            Request::unmap(0),
            Request::config_changed(),
        ];
        let mut bench = Bench::new(GET_VRING_BASE, Answer::After(wishes), PATIENCE);
        bench.stop(by);
        assert!(!bench.is_broken(), "{by:?}");
        assert_eq!(bench.mapped(), left, "{by:?}");
        let told = bench.machine.config_call();
        if by == Stop::Pause {
            let machine = &mut bench.machine;
            machine.handle_until("the driver is told", |_| told.read().is_ok());
        }
        assert_eq!(bench.count(GET_VRING_BASE), 1, "{by:?}");
    }
}

/// Also those about a device that is paused, and its reset then.
#[test]
fn whatever_a_backend_is_asked_it_may_map_before_it_answers() {
    let file = page();
    let messages = [
        SET_FEATURES,
        SET_MEM_TABLE,
        SET_VRING_CALL,
        SET_VRING_KICK,
        SET_VRING_ENABLE,
        GET_VRING_BASE,
        SET_STATUS,
        GET_STATUS,
        RESET_DEVICE,
    ];
    for message in messages {
        let wishes = vec![Request::map(0, &file), Request::unmap(0)];
        let mut bench = Bench::new(message, Answer::After(wishes), PATIENCE);
        for by in [Stop::Pause, Stop::Reset] {
            bench.stop(by);
            bench.machine.unpause();
            assert!(!bench.is_broken(), "{message:?}");
            bench.machine.pause();
            bench.stop(Stop::Reset);
            bench.machine.unpause();
            bench.bring_up();
        }
        assert!(bench.mapped().is_empty(), "{message:?}");
        assert!(bench.count(message) > 1, "{message:?}");
    }
}

#[test]
fn a_request_that_needs_a_mapping_is_finished_before_its_queue_is_stopped() {
    let file = page();
    for by in [Stop::Pause, Stop::Reset] {
        let nothing_else = Answer::After(Vec::new());
        let mut bench = Bench::new(GET_VRING_BASE, nothing_else, PATIENCE);
        let (memory, mut ring) = (bench.machine.memory.clone(), Ring::new(0, 0x4000));
        let buffer = Buffer {
            address: 0x8000,
            len: 1,
            writable: true,
        };
        ring.add(&memory, &[buffer]);
        let stream = bench.backend.requests();
        // More than are served while the kicks are kept away.
        let wishes = [Request::map(0, &file), Request::unmap(0)];
        let device = thread::spawn(move || {
            for wish in wishes.iter().cycle().take(20) {
                assert_eq!(wish.ask(&stream).expect("an answer"), 0);
            }
            ring.set_used(&memory, 1);
            Instant::now()
        });
        bench.stop(by);
        let stopped = Instant::now();
        assert!(device.join().unwrap() < stopped, "{by:?}");
        assert!(!bench.is_broken(), "{by:?}");
        assert_eq!(bench.count(GET_VRING_BASE), 1, "{by:?}");
    }
}

#[test]
fn a_backend_that_maps_without_end_and_stops_nothing_is_late() {
    let file = page();
    for by in [Stop::Pause, Stop::Reset] {
        let wishes = vec![Request::map(0, &file), Request::unmap(0)];
        let mut bench = Bench::new(GET_VRING_BASE, Answer::Flood(wishes), SHORT);
        let start = Instant::now();
        bench.stop(by);
        let waited = start.elapsed();
        assert!((SHORT..PATIENCE).contains(&waited), "{by:?}: {waited:?}");
        assert_eq!(bench.is_broken(), by == Stop::Pause);
        bench.stop(Stop::Reset);
        assert!(bench.mapped().is_empty(), "{by:?}");
        assert_eq!(bench.count(GET_VRING_BASE), 1, "{by:?}");
    }
}

/// Whether or not the guest has met it, which nobody may be told of.
#[test]
fn a_mapped_file_that_is_cut_short_is_found_and_costs_the_device_a_reset() {
    let file = page();
    let wishes = vec![Request::map(0, &file)];
    let mut bench = Bench::new(SET_VRING_KICK, Answer::After(wishes), PATIENCE);
    assert_eq!(bench.mapped(), [0]);
    file.set_len(0).unwrap();
    let machine = &mut bench.machine;
    machine.handle_until("the device is broken", |machine| {
        machine.has_status(Status::NEEDS_RESET)
    });
    assert!(bench.mapped().is_empty());
    file.set_len(PAGE).unwrap();
    bench.bring_up();
    assert_eq!(bench.mapped(), [0]);
}
