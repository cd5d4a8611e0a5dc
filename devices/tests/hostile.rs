//! Backends that answer wrongly, late or never, at any message: the frontend
//! neither panics nor waits beyond its deadlines, the driver always gets its
//! reset, and nothing is left open.

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use devices::vhost_user::{Frontend, Options, Reconnect};
use devices::virtio::DeviceType;
use devices::virtio::spec::Register;
use proptest::prelude::*;
use support::scripted::{Answer, CONFIG, FEATURES, Life, MQ, REPLY_ACK, Scripted};
use support::{Machine, Ring};
use vhost::vhost_user::message::FrontendReq;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;

/// Cases; `make soak` asks for more.
const CASES: u32 = 200;
/// Of the frontend. What is late costs as much.
const DEADLINE: Duration = Duration::from_millis(50);
/// A connection, a reset, an activation and another reset each have a deadline
/// of their own; the rest is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

const REQUESTS: [FrontendReq; 24] = [
    FrontendReq::SET_OWNER,
    FrontendReq::GET_FEATURES,
    FrontendReq::SET_FEATURES,
    FrontendReq::GET_PROTOCOL_FEATURES,
    FrontendReq::SET_PROTOCOL_FEATURES,
    FrontendReq::GET_QUEUE_NUM,
    FrontendReq::GET_CONFIG,
    FrontendReq::SET_BACKEND_REQ_FD,
    FrontendReq::GET_SHMEM_CONFIG,
    FrontendReq::GET_MAX_MEM_SLOTS,
    FrontendReq::ADD_MEM_REG,
    FrontendReq::REM_MEM_REG,
    FrontendReq::SET_MEM_TABLE,
    FrontendReq::SET_VRING_NUM,
    FrontendReq::SET_VRING_BASE,
    FrontendReq::SET_VRING_ADDR,
    FrontendReq::SET_VRING_CALL,
    FrontendReq::SET_VRING_ERR,
    FrontendReq::SET_VRING_KICK,
    FrontendReq::SET_VRING_ENABLE,
    FrontendReq::GET_VRING_BASE,
    FrontendReq::GET_INFLIGHT_FD,
    FrontendReq::GET_STATUS,
    FrontendReq::RESET_DEVICE,
];

fn cases() -> u32 {
    let asked = std::env::var("OUTBOARD_FUZZ_CASES");
    asked.map_or(CASES, |cases| cases.parse().unwrap())
}

/// Numbers as they stand in replies: counts, indices, bits; or anything.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..70, 2 => (0u32..64).prop_map(|bit| 1 << bit), 1 => any::<u64>()]
}

/// A header with these words, and bytes behind it.
fn raw(words: [u32; 3], payload: &[u8]) -> Answer {
    let header = words.map(u32::to_ne_bytes).concat();
    Answer::Raw([&header[..], payload].concat())
}

fn answers() -> impl Strategy<Value = Answer> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..80);
    let headers = (
        0u32..50,
        prop_oneof![4 => Just(5u32), 1 => any::<u32>()],
        0u32..100,
    );
    prop_oneof![
        6 => numbers().prop_map(Answer::Number),
        4 => prop::collection::vec(numbers(), 0..6)
            .prop_map(|all| Answer::Payload(all.into_iter().flat_map(u64::to_ne_bytes).collect())),
        2 => bytes().prop_map(Answer::Payload),
        2 => (bytes(), 0u64..1 << 20).prop_map(|(bytes, len)| {
            let file = tempfile::tempfile().unwrap();
            file.set_len(len).unwrap();
            Answer::File(bytes, Arc::new(file))
        }),
        2 => bytes().prop_map(Answer::Raw),
        4 => (headers, bytes()).prop_map(|((code, flags, size), bytes)| {
            raw([code, flags, size], &bytes)
        }),
        1 => Just(Answer::Silence),
        1 => Just(Answer::HangUp),
    ]
}

fn lives() -> impl Strategy<Value = Life> {
    let requests = prop::sample::select(&REQUESTS[..]);
    let script = prop::collection::vec((requests, answers()), 0..4);
    let optional = Protocol::INFLIGHT_SHMFD
        | Protocol::BACKEND_REQ
        | Protocol::RESET_DEVICE
        | Protocol::CONFIGURE_MEM_SLOTS
        | Protocol::STATUS
        | Protocol::DEVICE_STATE
        | Protocol::SHMEM;
    let optional = MQ | CONFIG | optional.bits();
    (any::<u64>(), any::<bool>(), script).prop_map(move |(protocol, acks, script)| {
        let acks = if acks { REPLY_ACK } else { 0 };
        let life = Life::new(FEATURES, protocol & optional | acks);
        let answer = |life: Life, (request, answer)| life.answer(request, answer);
        script.into_iter().fold(life, answer)
    })
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// All that a driver does to a device, whatever comes of it.
fn drive(machine: &mut Machine) {
    let mut ring = Ring::new(0, 0x4000);
    for _ in 0..2 {
        machine.write(Register::Status, 0);
        assert_eq!(machine.read(Register::Status), 0, "a reset is a reset");
        for status in [1, 3, 11] {
            machine.write(Register::Status, status);
        }
        machine.write(Register::QueueSel, 0);
        if machine.read(Register::QueueSizeMax) >= Ring::SIZE.into() {
            machine.try_set_up(&mut ring);
        }
        machine.write(Register::Status, 15);
        machine.write(Register::QueueNotify, 0);
        machine.read_config(0, 8);
        machine.transport.handle_event();
    }
    machine.write(Register::Status, 0);
    assert_eq!(machine.read(Register::Status), 0, "a reset is a reset");
}

fn meet(life: Life, device_type: DeviceType) {
    let backend = Scripted::lives([life]);
    let options = Options {
        deadline: DEADLINE,
        reconnect: Reconnect::Off,
        ..Options::new("dut", device_type, &backend.socket)
    };
    let memory = support::shared_memory();
    if let Ok(frontend) = Frontend::connect(options, memory.clone()) {
        // A device without VERSION_1 is refused here.
        if let Ok(mut machine) = Machine::try_new(frontend, memory) {
            drive(&mut machine);
        }
    }
    backend.finish();
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases())
    })]

    #[test]
    fn no_backend_harms_the_frontend(
        life in lives(),
        device_type in prop::sample::select(&[DeviceType::BLK, DeviceType::NET, DeviceType::RNG][..]),
    ) {
        let (open, start) = (open_files(), Instant::now());
        meet(life.clone(), device_type);
        prop_assert!(start.elapsed() < PATIENCE);
        prop_assert_eq!(open_files(), open);
    }
}
