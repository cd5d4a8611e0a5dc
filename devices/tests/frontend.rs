//! The frontend's side of the conversation, and what it makes of backends that
//! do not keep theirs.

mod support;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::deadline::Deadline;
use devices::vhost_user::shared_memory::SharedMemory;
use devices::vhost_user::{
    Address, ChannelError, Error, Frontend, Options, Problem, Reconnect, share,
};
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use devices::virtio::{Device, DeviceEvent, DeviceType, SharedRegion};
use support::scripted::{Answer, CONFIG, FEATURES, MQ, REPLY_ACK, Received, Scripted};
use support::{Machine, Ring, wait};
use vhost::vhost_user::message::BackendReq;
use vhost::vhost_user::message::FrontendReq::{self, *};
use vm_memory::{GuestAddress, GuestMemoryBackend};

const ALL: u64 = MQ | REPLY_ACK | CONFIG;
const VERSION_1: u64 = 1 << 32;
const LOG_ALL: u64 = 1 << 26;
const LOG_SHMFD: u64 = 1 << 1;
const NET_CTRL_VQ: u64 = 1 << 17;
const NET_MAC: u64 = 1 << 5;
const NET_MRG_RXBUF: u64 = 1 << 15;

fn options(backend: &Scripted, device_type: DeviceType) -> Options {
    Options {
        deadline: Duration::from_secs(20),
        ..Options::new("dut", device_type, &backend.socket)
    }
}

/// For backends that are going to be late.
fn hasty(options: Options) -> Options {
    Options {
        deadline: Duration::from_millis(200),
        ..options
    }
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

fn connect_as(backend: &Scripted, device_type: DeviceType) -> Result<Box<dyn Device>, Error> {
    let options = options(backend, device_type);
    let frontend = Frontend::connect(options, support::shared_memory())?;
    Ok(share(frontend).0)
}

fn machine(backend: &Scripted, device_type: DeviceType) -> Machine {
    machine_with(options(backend, device_type))
}

fn machine_with(options: Options) -> Machine {
    let memory = support::shared_memory();
    let frontend = Frontend::connect(options, memory.clone()).unwrap();
    Machine::new(frontend, memory)
}

/// The problem of a connection that has to fail.
fn problem(
    device_type: DeviceType,
    features: u64,
    protocol: u64,
    answers: impl IntoIterator<Item = (FrontendReq, Answer)>,
) -> Problem {
    let backend = Scripted::start(features, protocol, answers);
    let error = connect_as(&backend, device_type).expect_err("no success");
    assert_eq!(error.id, "dut");
    assert_eq!(error.address, Address::Socket(backend.socket.clone()));
    backend.finish();
    error.problem
}

fn requests(received: &[Received]) -> Vec<FrontendReq> {
    received.iter().map(|message| message.request).collect()
}

fn find(received: &[Received], request: FrontendReq) -> Vec<&Received> {
    let found = received.iter().filter(|message| message.request == request);
    found.collect()
}

#[test]
fn messages_come_in_the_order_that_backends_know() {
    let backend = Scripted::start(FEATURES, ALL, []);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    machine.write(Register::Status, 0);
    drop(machine);
    let received = backend.finish();
    assert_eq!(
        requests(&received),
        [
            SET_OWNER,
            GET_FEATURES,
            GET_PROTOCOL_FEATURES,
            SET_PROTOCOL_FEATURES,
            GET_QUEUE_NUM,
            GET_CONFIG,
            GET_CONFIG,
            SET_FEATURES,
            SET_MEM_TABLE,
            SET_VRING_NUM,
            SET_VRING_BASE,
            SET_VRING_ADDR,
            SET_VRING_CALL,
            SET_VRING_ERR,
            SET_VRING_KICK,
            SET_VRING_ENABLE,
            GET_VRING_BASE,
            SET_VRING_ENABLE,
        ]
    );
    let [set_features] = find(&received, SET_FEATURES)[..] else {
        panic!("once");
    };
    assert_eq!(set_features.number(), FEATURES, "with the protocol bit");
    assert_eq!(find(&received, SET_VRING_NUM)[0].state(), (0, 16));
    assert_eq!(find(&received, SET_VRING_BASE)[0].state(), (0, 0));
    let enables = find(&received, SET_VRING_ENABLE);
    assert_eq!(enables[0].state(), (0, 1));
    assert_eq!(enables[1].state(), (0, 0));
}

#[test]
fn addresses_of_the_vmm_are_not_sent() {
    let backend = Scripted::start(FEATURES, ALL, []);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    let memory = machine.memory.clone();
    drop(machine);
    let received = backend.finish();
    let number =
        |payload: &[u8], at: usize| u64::from_ne_bytes(payload[at..at + 8].try_into().unwrap());

    let table = &find(&received, SET_MEM_TABLE)[0].payload;
    let user_address = number(table, 8 + 16);
    let addresses = &find(&received, SET_VRING_ADDR)[0].payload;
    let ring: Vec<_> = [8, 16, 24]
        .map(|at| number(addresses, at) - user_address)
        .into();
    assert_eq!(
        ring,
        [0x4000, 0x6000, 0x5000],
        "descriptors, used, available"
    );
    for region in memory.iter() {
        let host = region.as_ptr() as u64;
        let sent = table.windows(8).chain(addresses.windows(8));
        for window in sent {
            assert_ne!(
                u64::from_ne_bytes(window.try_into().unwrap()) >> 24,
                host >> 24
            );
        }
    }
}

#[test]
fn without_acknowledgements_a_question_makes_sure_that_all_was_heard() {
    let backend = Scripted::start(FEATURES, CONFIG, []);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    drop(machine);
    let received = requests(&backend.finish());
    let after = |request| {
        let at = received.iter().position(|found| *found == request).unwrap();
        received[at + 1]
    };
    assert_eq!(after(SET_MEM_TABLE), GET_FEATURES);
    assert_eq!(after(SET_VRING_ENABLE), GET_FEATURES);
    // It could not say that it does not know of errors.
    assert!(!received.contains(&SET_VRING_ERR));
}

#[test]
fn a_backend_without_protocol_features_is_not_asked_for_any() {
    let backend = Scripted::start(VERSION_1, 0, []);
    let mut machine = machine(&backend, DeviceType::RNG);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    drop(machine);
    let received = requests(&backend.finish());
    for absent in [
        GET_PROTOCOL_FEATURES,
        GET_QUEUE_NUM,
        SET_VRING_ENABLE,
        GET_CONFIG,
    ] {
        assert!(!received.contains(&absent), "{absent:?}");
    }
}

#[test]
fn queues_that_the_driver_left_alone_stay_alone() {
    let backend = Scripted::start(FEATURES, ALL, [(GET_QUEUE_NUM, Answer::Number(4))]);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut [Ring::new(2, 0x4000)]);
    machine.write(Register::Status, 0);
    drop(machine);
    let received = backend.finish();
    for request in [SET_VRING_NUM, SET_VRING_ENABLE, GET_VRING_BASE] {
        for message in find(&received, request) {
            assert_eq!(message.state().0, 2, "{request:?}");
        }
    }
}

#[test]
fn a_queue_is_kicked_when_its_descriptor_is_given_and_when_it_has_been_enabled() {
    let backend = Scripted::start(FEATURES, ALL, []);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    assert_eq!(machine.kick(0).read().unwrap(), 2);
}

#[test]
fn configurations_are_read_at_the_first_length_that_is_accepted() {
    // As rust-vmm's: a refusal says 0 bytes.
    let refusal = Answer::Payload(vec![0; 12]);
    let backend = Scripted::start(FEATURES, ALL, [(GET_CONFIG, refusal)]);
    let device = connect_as(&backend, DeviceType::NET);
    assert!(device.is_ok(), "a network device works without");
    assert_eq!(device.unwrap().read_config(&deadline()).unwrap(), [0; 0]);
    let received = backend.finish();
    let asked = find(&received, GET_CONFIG);
    assert_eq!(asked.len(), 7);
    for (message, size) in asked.iter().zip([24u32, 20, 17, 12, 10, 8, 6]) {
        let header = [0, size, 0].map(u32::to_ne_bytes).concat();
        assert_eq!(message.payload, [header, vec![0; size as usize]].concat());
    }
}

#[test]
fn a_configuration_that_the_type_needs_has_to_be_readable() {
    // As libvhost-user's: a refusal says nothing.
    let refusal = [(GET_CONFIG, Answer::Payload(vec![]))];
    let refused = problem(DeviceType::BLK, FEATURES, ALL, refusal);
    assert!(
        matches!(refused, Problem::NoConfig { offered: true, .. }),
        "{refused}"
    );
    let absent = problem(DeviceType::FS, FEATURES, MQ, []);
    assert!(
        matches!(absent, Problem::NoConfig { offered: false, .. }),
        "{absent}"
    );
}

#[test]
fn driver_writes_to_the_configuration_are_marked_as_the_drivers() {
    let backend = Scripted::start(FEATURES, ALL, []);
    let mut device = connect_as(&backend, DeviceType::BLK).unwrap();
    device.write_config(32, &[1], &deadline()).unwrap();
    drop(device);
    let received = backend.finish();
    let [set] = find(&received, SET_CONFIG)[..] else {
        panic!("once");
    };
    let words = [32u32, 1, 0].map(u32::to_ne_bytes).concat();
    assert_eq!(set.payload, [&words[..], &[1]].concat());
}

#[test]
fn queue_counts_of_backends_are_not_believed_blindly() {
    for (has, expected) in [(1, 1), (3, 3), (u64::MAX, 16)] {
        let backend = Scripted::start(FEATURES, ALL, [(GET_QUEUE_NUM, Answer::Number(has))]);
        let device = connect_as(&backend, DeviceType::BLK).unwrap();
        assert_eq!(device.queue_max_sizes(), vec![256; expected]);
    }
    let none = problem(
        DeviceType::BLK,
        FEATURES,
        ALL,
        [(GET_QUEUE_NUM, Answer::Number(0))],
    );
    assert!(matches!(none, Problem::NoQueues), "{none}");
}

#[test]
fn a_legacy_backend_is_refused() {
    let refused = problem(DeviceType::RNG, FEATURES & !VERSION_1, ALL, []);
    assert!(matches!(refused, Problem::Legacy), "{refused}");
}

#[test]
fn more_queues_than_the_backend_has_are_refused() {
    let backend = Scripted::start(FEATURES, ALL, [(GET_QUEUE_NUM, Answer::Number(2))]);
    let options = Options {
        queues: Some(3),
        ..options(&backend, DeviceType::BLK)
    };
    let error = Frontend::connect(options, support::shared_memory())
        .err()
        .unwrap();
    assert!(
        matches!(error.problem, Problem::TooManyQueues { asked: 3, found: 2 }),
        "{error}"
    );
}

/// The number of queues and the features of a network device.
fn network(features: u64, protocol: u64, has: u64) -> (usize, u64) {
    let features = FEATURES | features;
    let backend = Scripted::start(features, protocol, [(GET_QUEUE_NUM, Answer::Number(has))]);
    let device = connect_as(&backend, DeviceType::NET).unwrap();
    (device.queue_max_sizes().len(), device.features())
}

#[test]
fn a_control_queue_is_there_when_it_is_served_and_only_then() {
    // A backend that counts queues and has the third.
    let (queues, features) = network(NET_CTRL_VQ, ALL, 3);
    assert_eq!((queues, features & NET_CTRL_VQ), (3, NET_CTRL_VQ));
    // One that counts pairs.
    let (queues, features) = network(NET_CTRL_VQ, ALL, 1);
    assert_eq!((queues, features & NET_CTRL_VQ), (3, NET_CTRL_VQ));
    // One that counts queues and has no third.
    let (queues, features) = network(NET_CTRL_VQ | NET_MRG_RXBUF, ALL, 2);
    assert_eq!((queues, features & NET_CTRL_VQ), (2, 0));
    assert_ne!(features & NET_MRG_RXBUF, 0);
    // One that leaves the device model to its frontend.
    let (queues, features) = network(NET_CTRL_VQ | NET_MAC, MQ | REPLY_ACK, 1);
    assert_eq!((queues, features & (NET_CTRL_VQ | NET_MAC)), (2, 0));
    // One that does not offer it.
    assert_eq!(network(NET_MAC, ALL, 8).0, 2);
}

#[test]
fn network_queues_come_in_pairs() {
    let backend = Scripted::start(FEATURES, ALL, [(GET_QUEUE_NUM, Answer::Number(8))]);
    let options = Options {
        queues: Some(3),
        ..options(&backend, DeviceType::NET)
    };
    let error = Frontend::connect(options, support::shared_memory())
        .err()
        .unwrap();
    assert!(matches!(error.problem, Problem::OddQueues(3)), "{error}");
}

#[test]
fn a_backend_that_does_not_answer_is_named_with_the_message() {
    let silence = [(GET_QUEUE_NUM, Answer::Silence)];
    let backend = Scripted::start(FEATURES, ALL, silence);
    let options = hasty(options(&backend, DeviceType::BLK));
    let start = Instant::now();
    let error = Frontend::connect(options, support::shared_memory())
        .err()
        .unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(
        matches!(
            error.problem,
            Problem::Channel(ChannelError::Late {
                message: GET_QUEUE_NUM,
                ..
            })
        ),
        "{error}"
    );
}

#[test]
fn a_backend_that_hangs_up_or_talks_nonsense_fails_the_connection() {
    let closed = problem(
        DeviceType::BLK,
        FEATURES,
        ALL,
        [(GET_FEATURES, Answer::HangUp)],
    );
    assert!(
        matches!(closed, Problem::Channel(ChannelError::Closed { .. })),
        "{closed}"
    );
    let nonsense = problem(
        DeviceType::BLK,
        FEATURES,
        ALL,
        [(GET_FEATURES, Answer::Raw(b"HTTP/1.1 400 Bad".to_vec()))],
    );
    assert!(
        matches!(nonsense, Problem::Channel(ChannelError::NotTheReply { .. })),
        "{nonsense}"
    );
}

#[test]
fn a_backend_that_hangs_at_driver_ok_costs_one_deadline_and_a_reset() {
    let backend = Scripted::start(FEATURES, ALL, [(SET_VRING_KICK, Answer::Silence)]);
    let mut machine = machine_with(Options {
        reconnect: Reconnect::Off,
        ..hasty(options(&backend, DeviceType::BLK))
    });
    let start = Instant::now();
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET));
    assert!(wait(&machine.config_call()), "the driver is told");
    machine.write(Register::Status, 0);
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET), "it stays lost");
    assert!(start.elapsed() < Duration::from_secs(5));
    let received = requests(&backend.finish());
    assert_eq!(
        received.last(),
        Some(&SET_VRING_KICK),
        "and nothing more said"
    );
}

#[test]
fn a_refused_queue_leaves_the_connection_usable() {
    let backend = Scripted::start(FEATURES, ALL, [(SET_VRING_NUM, Answer::Number(1))]);
    let mut machine = machine(&backend, DeviceType::BLK);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET));
    machine.bring_up(u64::MAX, &mut []);
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn a_ring_stopped_instead_of_another_is_a_loss_of_step() {
    let other = [7u32, 0].map(u32::to_ne_bytes).concat();
    let backend = Scripted::start(FEATURES, ALL, [(GET_VRING_BASE, Answer::Payload(other))]);
    let mut machine = machine_with(Options {
        reconnect: Reconnect::Off,
        ..options(&backend, DeviceType::BLK)
    });
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(u64::MAX, &mut rings);
    machine.write(Register::Status, 0);
    assert_eq!(
        machine.read(Register::Status),
        0,
        "the driver gets its reset"
    );
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn a_backend_that_speaks_unasked_is_not_trusted_any_more() {
    // A configuration of one byte, and then the same reply again.
    let header = [24u32, 5, 13, 0, 1, 0].map(u32::to_ne_bytes).concat();
    let twice = [&header[..], &[0], &header, &[0]].concat();
    let backend = Scripted::start(FEATURES, ALL, [(GET_CONFIG, Answer::Raw(twice))]);
    let mut device = connect_as(&backend, DeviceType::NET).unwrap();
    assert!(wait(&device.event_fd().unwrap()));
    let event = device.handle_event(&deadline());
    assert!(matches!(event, DeviceEvent::Broken(_)), "{event:?}");
    let again = device.handle_event(&deadline());
    assert!(matches!(again, DeviceEvent::Nothing), "once");
}

/// vhost-device-gpu waits for it, and its driver without end.
#[test]
fn a_gpu_is_refused_for_want_of_a_display() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("gpu.sock");
    let backend = UnixListener::bind(&socket).unwrap();
    backend.set_nonblocking(true).unwrap();
    let options = Options::new("dut", DeviceType::GPU, &socket);
    let refused = Frontend::connect(options, support::shared_memory());
    let error = refused.err().expect("no success");
    assert!(matches!(error.problem, Problem::NoDisplay), "{error:?}");
    let text = error.problem.to_string();
    assert!(text.contains("VHOST_USER_GPU_SET_SOCKET"), "{text}");
    assert!(backend.accept().is_err(), "no backend is disturbed");
}

#[test]
fn nobody_listening_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        connect_deadline: Duration::from_millis(10),
        ..Options::new("dut", DeviceType::BLK, dir.path().join("nobody.sock"))
    };
    let error = Frontend::connect(options, support::shared_memory())
        .err()
        .unwrap();
    assert!(error.to_string().contains("nobody.sock"), "{error}");
    let problem = error.problem.to_string();
    assert!(problem.contains("start the backend"), "{problem}");
}

const RESET_DEVICE_FEATURE: u64 = 1 << 13;
const STATUS: u64 = 1 << 16;

#[test]
fn the_backend_hears_of_the_drivers_status_and_reset_if_it_wants_to() {
    let backend = Scripted::start(FEATURES, ALL | RESET_DEVICE_FEATURE | STATUS, []);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.write(Register::Status, 0);
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    machine.write(Register::Status, 0);
    machine.write(Register::Status, 0);
    drop(machine);
    let received = backend.finish();
    let statuses = find(&received, SET_STATUS);
    let statuses: Vec<_> = statuses.iter().map(|message| message.number()).collect();
    assert_eq!(statuses, [0xb, 0xf, 0]);
    assert_eq!(find(&received, RESET_DEVICE).len(), 1, "once a driver");
    let order = requests(&received);
    let at = |request| order.iter().position(|r| *r == request).unwrap();
    assert!(at(SET_FEATURES) < at(SET_STATUS), "features come first");
    let is_driver_ok = |m: &Received| m.request == SET_STATUS && m.number() == 0xf;
    let driver_ok = received.iter().position(is_driver_ok).unwrap();
    assert!(at(SET_VRING_ENABLE) < driver_ok, "rings are started");
    assert!(at(GET_VRING_BASE) < at(RESET_DEVICE), "rings are stopped");
}

#[test]
fn a_backend_that_leaves_features_ok_out_has_refused_them() {
    let refusal = [(GET_STATUS, Answer::Number(0x3))];
    let backend = Scripted::start(FEATURES, ALL | STATUS, refusal);
    let mut machine = machine(&backend, DeviceType::BLK);
    machine.bring_up(u64::MAX, &mut []);
    assert!(machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn a_queue_whose_start_is_refused_is_stopped() {
    let refusal = [(SET_VRING_ENABLE, Answer::Number(1))];
    let backend = Scripted::start(FEATURES, ALL, refusal);
    let mut machine = machine(&backend, DeviceType::NET);
    machine.bring_up(u64::MAX, &mut [Ring::new(1, 0x4000)]);
    assert!(machine.has_status(Status::NEEDS_RESET));
    machine.write(Register::Status, 0);
    drop(machine);
    let stopped = backend.finish();
    let [stopped] = find(&stopped, GET_VRING_BASE)[..] else {
        panic!("once");
    };
    assert_eq!(stopped.state(), (1, 0));
}

const NEEDS_RESET: u64 = 0x40;

/// As any device tells it: a bit in its status, and a change of its configuration.
#[test]
fn a_device_that_says_that_it_needs_a_reset_has_one() {
    for status in [0xf, 0xf | NEEDS_RESET] {
        let answers = [(GET_STATUS, Answer::Number(status))];
        let backend = Scripted::start(FEATURES, ALL | STATUS | BACKEND_REQ, answers);
        let mut machine = machine(&backend, DeviceType::BLK);
        machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
        backend.ask(BackendReq::CONFIG_CHANGE_MSG);
        let told = machine.config_call();
        machine.handle_until("the driver is told", |_| told.read().is_ok());
        let needs_reset = status & NEEDS_RESET != 0;
        assert_eq!(machine.has_status(Status::NEEDS_RESET), needs_reset);
        drop(machine);
        // It is in step, and stops what it serves.
        let stopped = find(&backend.finish(), GET_VRING_BASE).len();
        assert_eq!(stopped, usize::from(needs_reset));
    }
}

#[test]
fn features_that_the_user_does_not_want_are_not_offered() {
    let backend = Scripted::start(FEATURES | NET_MRG_RXBUF | NET_MAC, ALL, []);
    let frontend = Frontend::connect(
        Options {
            masked_features: NET_MAC,
            ..options(&backend, DeviceType::NET)
        },
        support::shared_memory(),
    );
    let features = share(frontend.unwrap()).0.features();
    assert_eq!(features & (NET_MAC | NET_MRG_RXBUF), NET_MRG_RXBUF);
}

/// Without its own bit the protocol's messages would not be understood.
#[test]
fn a_mask_does_not_hide_protocol_features() {
    let backend = Scripted::start(FEATURES, ALL, []);
    let mut machine = machine_with(Options {
        masked_features: 1 << 30,
        ..options(&backend, DeviceType::BLK)
    });
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    drop(machine);
    let received = backend.finish();
    assert_eq!(find(&received, SET_FEATURES)[0].number(), FEATURES);
    assert_eq!(find(&received, SET_VRING_ENABLE).len(), 1);
}

const BACKEND_REQ: u64 = 1 << 5;
const BACKEND_SEND_FD: u64 = 1 << 10;
const SHMEM: u64 = 1 << 22;

/// The payload of the answer to GET_SHMEM_CONFIG: sizes by region number.
fn shared_memory_config(sizes: &[u64]) -> Answer {
    let count = sizes.iter().filter(|size| **size != 0).count() as u64;
    let words = [count].into_iter().chain(sizes.iter().copied());
    Answer::Payload(words.flat_map(u64::to_ne_bytes).collect())
}

#[test]
fn shared_memory_regions_are_told_to_the_driver() {
    let sizes = shared_memory_config(&[0, 2 << 20, 0, 1 << 32]);
    let protocol = ALL | BACKEND_REQ | SHMEM;
    let backend = Scripted::start(FEATURES, protocol, [(GET_SHMEM_CONFIG, sizes)]);
    let memory = support::shared_memory();
    let mut frontend =
        Frontend::connect(options(&backend, DeviceType::FS), memory.clone()).unwrap();
    assert_eq!(
        frontend.wanted_shared_memory(),
        [(1, 2 << 20), (3, 1 << 32)]
    );
    let region = |(id, len)| SharedRegion {
        id,
        base: GuestAddress(u64::from(id) << 33),
        len,
    };
    let regions = frontend.wanted_shared_memory().into_iter().map(region);
    let wiring = Arc::new(support::Wiring::default());
    let shared = SharedMemory::new(wiring, regions.collect()).unwrap();
    frontend.give_shared_memory(shared).unwrap();
    let mut machine = Machine::new(frontend, memory);
    let mut read = |select| {
        machine.write(Register::ShmSel, select);
        let mut wide =
            |low, high| u64::from(machine.read(high)) << 32 | u64::from(machine.read(low));
        (
            wide(Register::ShmLenLow, Register::ShmLenHigh),
            wide(Register::ShmBaseLow, Register::ShmBaseHigh),
        )
    };
    assert_eq!(read(1), (2 << 20, 1 << 33));
    assert_eq!(read(3), (1 << 32, 3 << 33));
    for absent in [0, 2, 4, 256 + 1] {
        assert_eq!(read(absent), (u64::MAX, u64::MAX), "region {absent}");
    }
}

/// A backend must not send a file without it.
#[test]
fn files_are_taken_from_backends_that_have_some_to_map_and_from_no_other() {
    let mappings = BACKEND_REQ | SHMEM;
    for (protocol, taken) in [(mappings, BACKEND_SEND_FD), (SHMEM, 0), (BACKEND_REQ, 0)] {
        let sizes = [(GET_SHMEM_CONFIG, shared_memory_config(&[0, 4096]))];
        let backend = Scripted::start(FEATURES, ALL | BACKEND_SEND_FD | protocol, sizes);
        drop(connect_as(&backend, DeviceType::FS).unwrap());
        let agreed = find(&backend.finish(), SET_PROTOCOL_FEATURES)[0].number();
        assert_eq!(agreed & BACKEND_SEND_FD, taken, "{protocol:#x}");
    }
}

#[test]
fn shared_memory_that_nothing_could_be_mapped_into_is_not_asked_for() {
    let backend = Scripted::start(FEATURES, ALL | SHMEM, []);
    let options = options(&backend, DeviceType::FS);
    let mut frontend = Frontend::connect(options, support::shared_memory()).unwrap();
    assert_eq!(frontend.wanted_shared_memory(), []);
    drop(frontend);
    let received = backend.finish();
    assert_eq!(find(&received, GET_SHMEM_CONFIG).len(), 0);
    let taken = find(&received, SET_PROTOCOL_FEATURES)[0].number();
    assert_eq!(taken & SHMEM, 0);
}

/// The messages about a log, and what a backend that cannot log is not asked.
#[test]
fn a_log_is_handed_over_before_it_is_switched_on_and_off_for_every_ring() {
    let features = FEATURES | LOG_ALL;
    let backend = Scripted::start(features, LOG_SHMFD, []);
    let mut machine = machine(&backend, DeviceType::RNG);
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(u64::MAX, &mut rings);
    for wanted in [true, true, false] {
        machine.set_dirty_log(wanted).unwrap();
    }
    assert!(!machine.has_status(Status::NEEDS_RESET));
    drop(machine);
    let said = backend.finish();
    let begun = said.iter().position(|said| said.request == SET_LOG_BASE);
    let about: Vec<_> = said[begun.unwrap()..]
        .iter()
        .filter_map(|said| match said.request {
            SET_LOG_BASE => Some((said.request, said.number())),
            SET_FEATURES => Some((said.request, said.number() & LOG_ALL)),
            // Flags, behind the index, and the address for the log, at the end.
            SET_VRING_ADDR => {
                let log = u64::from_ne_bytes(said.payload[32..40].try_into().unwrap());
                assert_eq!(log, rings[0].used());
                Some((said.request, said.state().1.into()))
            }
            _ => None,
        })
        .collect();
    // One bit a page, up to the last one, in whole pages.
    let size = (((1u64 << 32) + support::RAM / 2) / 4096 / 8).next_multiple_of(4096);
    assert_eq!(
        about,
        [
            (SET_LOG_BASE, size),
            (SET_FEATURES, LOG_ALL),
            (SET_VRING_ADDR, 1),
            (SET_FEATURES, 0),
            (SET_VRING_ADDR, 0),
        ]
    );
}

#[test]
fn a_backend_that_cannot_log_is_not_asked_to() {
    for (features, protocol) in [(LOG_ALL, 0), (0, LOG_SHMFD)] {
        let features = FEATURES | features;
        let backend = Scripted::start(features, protocol, []);
        let mut machine = machine(&backend, DeviceType::RNG);
        let refused = machine.set_dirty_log(true).unwrap_err();
        let refused = refused.source().unwrap().to_string();
        assert!(
            refused.starts_with("the backend cannot log the pages"),
            "{refused}"
        );
        assert_eq!(machine.backend.dirty_pages(), None);
        machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
        assert!(!machine.has_status(Status::NEEDS_RESET));
    }
}

#[test]
fn a_backend_that_hangs_over_the_log_is_lost() {
    let features = FEATURES | LOG_ALL;
    let silent = [(SET_LOG_BASE, Answer::Silence)];
    let backend = Scripted::start(features, LOG_SHMFD, silent);
    let mut machine = machine_with(hasty(options(&backend, DeviceType::RNG)));
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000)]);
    machine.set_dirty_log(true).unwrap();
    assert!(machine.has_status(Status::NEEDS_RESET));
}

/// What a SCSI driver writes are settings; of a type that is not known, to write may be
/// to ask.
#[test]
fn a_scsi_backend_is_not_told_what_it_has_set_itself() {
    let unknown = DeviceType::new(4711).unwrap();
    for (device_type, told) in [(DeviceType::SCSI, vec![9]), (unknown, vec![3, 9])] {
        let backend = Scripted::start(FEATURES, CONFIG, []);
        let mut device = connect_as(&backend, device_type).unwrap();
        // The scripted space counts up from 0.
        device.write_config(3, &[3], &deadline()).unwrap();
        device.write_config(3, &[9], &deadline()).unwrap();
        drop(device);
        let received = backend.finish();
        let written = find(&received, SET_CONFIG);
        let written: Vec<u8> = written.iter().map(|said| said.payload[12]).collect();
        assert_eq!(written, told, "{device_type}");
    }
}

/// `select` and `subsel` make one question, whatever the backend answers to the first
/// alone. Linux writes one after the other, vhost-device-input ends itself when it is told
/// of one only, and libvhost-user's takes either for `select`.
#[test]
fn an_input_backend_is_told_the_whole_question() {
    let backend = Scripted::start(FEATURES, CONFIG, []);
    let mut device = connect_as(&backend, DeviceType::INPUT).unwrap();
    let size = device.read_config(&deadline()).unwrap().len();
    device.write_config(0, &[0x11], &deadline()).unwrap();
    device.read_config(&deadline()).unwrap();
    device.write_config(1, &[0x02], &deadline()).unwrap();
    // Beyond the end there is nothing to write to.
    device.write_config(size as u32, &[7], &deadline()).unwrap();
    drop(device);
    let received = backend.finish();
    let mut question = vec![0; size];
    let mut told = Vec::new();
    for (field, value) in [(0, 0x11), (1, 0x02), (1, 0x02)] {
        question[field] = value;
        let header = [0, size as u32, 0].map(u32::to_ne_bytes).concat();
        told.push([header, question.clone()].concat());
    }
    let written = find(&received, SET_CONFIG);
    let written: Vec<_> = written.iter().map(|said| said.payload.clone()).collect();
    assert_eq!(written, told);
}
