//! The frontend on a backend made of the rust-vmm crates, as virtiofsd, the
//! vhost-device family and many others are.

mod support;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use devices::vhost_user::{Frontend, Options};
use devices::virtio::DeviceType;
use devices::virtio::status::Status;
use support::{Buffer, Machine, Ring, wait};
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringMutex, VringT};
use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

const QUEUES: usize = 2;
const FEATURES: u64 = 1 << 32 | 1 << 30;
/// A length that is not the longest the frontend tries for a block device.
const CONFIG: [u8; 60] = [0x5a; 60];
const DATA: GuestAddress = GuestAddress((1 << 32) + 0x1000);

/// Fills every buffer with the number of requests so far. It insists, as many
/// backends do, on being asked for exactly the configuration that it has.
struct Counter {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    requests: u8,
    config: Arc<Mutex<Vec<u8>>>,
    exit: (EventConsumer, EventNotifier),
}

impl VhostUserBackendMut for Counter {
    type Bitmap = ();
    type Vring = VringMutex;

    fn num_queues(&self) -> usize {
        QUEUES
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ | VhostUserProtocolFeatures::CONFIG
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, _offset: u32, _size: u32) -> Vec<u8> {
        self.config.lock().unwrap().clone()
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let at = offset as usize;
        self.config.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        let (consumer, notifier) = &self.exit;
        Some((consumer.try_clone().ok()?, notifier.try_clone().ok()?))
    }

    fn handle_event(
        &mut self,
        device_event: u16,
        _events: EventSet,
        vrings: &[VringMutex],
        _thread: usize,
    ) -> io::Result<()> {
        let vring = &vrings[usize::from(device_event)];
        let mut state = vring.get_mut();
        // The daemon's worker thread may be late for a queue that was stopped
        // meanwhile, and an error from here would end the worker.
        if !state.get_queue().ready() {
            return Ok(());
        }
        let memory = self.memory.memory();
        let chains: Vec<_> = state
            .get_queue_mut()
            .iter(memory.clone())
            .map_err(io::Error::other)?
            .collect();
        for chain in chains {
            let head = chain.head_index();
            let mut written = 0;
            for descriptor in chain.writable() {
                self.requests += 1;
                let bytes = vec![self.requests; descriptor.len() as usize];
                memory
                    .write_slice(&bytes, descriptor.addr())
                    .map_err(io::Error::other)?;
                written += descriptor.len();
            }
            state.add_used(head, written).map_err(io::Error::other)?;
            state.signal_used_queue()?;
        }
        Ok(())
    }
}

/// A daemon on a socket of its own. It serves one connection, and then is gone.
struct Backend {
    socket: PathBuf,
    config: Arc<Mutex<Vec<u8>>>,
    thread: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Backend {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("counter.sock");
        let config = Arc::new(Mutex::new(CONFIG.to_vec()));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let counter = Counter {
            memory: memory.clone(),
            requests: 0,
            config: config.clone(),
            exit: new_event_consumer_and_notifier(EventFlag::NONBLOCK).unwrap(),
        };
        let exit = counter.exit.1.try_clone().unwrap();
        let counter = Arc::new(Mutex::new(counter));
        let mut daemon = VhostUserDaemon::new("counter".into(), counter, memory).unwrap();
        let mut listener = Listener::new(&socket, true).unwrap();
        let thread = thread::spawn(move || {
            daemon.start(&mut listener).unwrap();
            // However the connection ends.
            let _ = daemon.wait();
            exit.notify().unwrap();
        });
        Self {
            socket,
            config,
            thread,
            _dir: dir,
        }
    }

    fn connect(&self) -> Machine {
        let memory = support::shared_memory();
        let options = Options {
            deadline: Duration::from_secs(20),
            ..Options::new("counter", DeviceType::BLK, &self.socket)
        };
        let frontend = Frontend::connect(options, memory.clone()).unwrap();
        Machine::new(frontend, memory)
    }
}

/// Has the device fill a buffer, and returns what is in it.
fn next(machine: &mut Machine, ring: &mut Ring) -> u8 {
    let buffer = Buffer {
        address: DATA.0,
        len: 4,
        writable: true,
    };
    machine.request(ring, &[buffer]);
    machine.memory.read_obj(DATA).unwrap()
}

fn rings() -> [Ring; QUEUES] {
    [Ring::new(0, 0x4000), Ring::new(1, 0x8000)]
}

#[test]
fn requests_are_served_in_every_queue_and_region() {
    let backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    for expected in 1..=100 {
        let ring = &mut rings[usize::from(expected) % QUEUES];
        assert_eq!(next(&mut machine, ring), expected);
    }
    drop(machine);
    backend.thread.join().unwrap();
}

#[test]
fn the_device_works_again_after_resets_on_the_same_connection() {
    let backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = rings();
    for expected in 1..=50 {
        machine.bring_up(u64::MAX, &mut rings);
        assert_eq!(next(&mut machine, &mut rings[1]), expected);
    }
}

#[test]
fn buffers_added_before_driver_ok_are_served() {
    let backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = rings();
    let buffer = Buffer {
        address: DATA.0,
        len: 1,
        writable: true,
    };
    let [ring, _] = &mut rings;
    machine.negotiate(u64::MAX);
    machine.set_up(ring);
    ring.add(&machine.memory, &[buffer]);
    machine.driver_ok();
    let call = machine.call(0);
    while ring.is_behind(&machine.memory) {
        assert!(wait(&call));
        let _ = call.read();
    }
    assert_eq!(machine.memory.read_obj::<u8>(DATA).unwrap(), 1);
}

#[test]
fn a_configuration_of_an_odd_length_is_read_and_written() {
    let backend = Backend::start();
    let mut machine = backend.connect();
    assert_eq!(machine.read_config(0, 60), CONFIG);
    assert_eq!(machine.read_config(60, 4), [0; 4]);
    machine.write_config(32, &[1]);
    assert_eq!(backend.config.lock().unwrap()[32], 1);
    assert_eq!(machine.read_config(32, 1), [1]);
}
