//! Backends that go away and come back, or do not.

mod support;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use devices::vhost_user::{Address, Connector, Frontend, Options, Problem, Reconnect};
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use devices::virtio::{DeviceEvent, DeviceType};
use support::scripted::{Answer, CONFIG, FEATURES, Life, MQ, REPLY_ACK, Received, Scripted};
use support::{Buffer, Machine, Ring, wait};
use vhost::vhost_user::message::FrontendReq::{self, *};

const ALL: u64 = MQ | REPLY_ACK | CONFIG;
const NET_MRG_RXBUF: u64 = 1 << 15;
const PACKED: u64 = 1 << 34;
const BUFFER: [Buffer; 1] = [Buffer {
    address: 0x2_0000,
    len: 512,
    writable: true,
}];

fn options(backend: &Scripted, device_type: DeviceType) -> Options {
    Options {
        deadline: Duration::from_secs(20),
        ..Options::new("dut", device_type, &backend.socket)
    }
}

fn machine(options: Options) -> Machine {
    let memory = support::shared_memory();
    let frontend = Frontend::connect(options, memory.clone()).unwrap();
    Machine::new(frontend, memory)
}

fn rings() -> [Ring; 2] {
    [Ring::new(0, 0x4000), Ring::new(1, 0x8000)]
}

fn sound() -> Life {
    Life::new(FEATURES, ALL).answer(GET_QUEUE_NUM, Answer::Number(2))
}

/// The backend dies, and the device notices.
fn lose(machine: &mut Machine, backend: &Scripted) {
    backend.die();
    machine.notice_loss();
    for index in [0, 1] {
        let _ = machine.kick(index).read();
    }
}

/// The next backend takes over all that the driver set up.
fn regain(machine: &mut Machine) {
    let call = machine.call(0);
    machine.handle_until("the backend is back", |_| call.read().is_ok());
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

fn expect_needs_reset(machine: &mut Machine) {
    machine.handle_until("a reset is needed", |machine| {
        machine.has_status(Status::NEEDS_RESET)
    });
    assert!(wait(&machine.config_call()), "the driver is told");
}

fn count(received: &[Received], request: FrontendReq) -> usize {
    received.iter().filter(|m| m.request == request).count()
}

fn states(received: &[Received], request: FrontendReq) -> Vec<(u32, u32)> {
    let found = received.iter().filter(|m| m.request == request);
    found.map(Received::state).collect()
}

#[test]
fn packets_go_on_at_the_used_index() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    for (ring, (added, used)) in rings.iter_mut().zip([(5, 3), (2, 2)]) {
        (0..added).for_each(|_| ring.add(&machine.memory, &BUFFER));
        ring.set_used(&machine.memory, used);
    }
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    let [first, second] = &backend.finish_lives()[..] else {
        panic!("two lives");
    };
    assert_eq!(states(first, SET_VRING_BASE), [(0, 0), (1, 0)]);
    assert_eq!(states(second, SET_VRING_BASE), [(0, 3), (1, 2)]);
    let order = |received: &[Received]| {
        let mut order: Vec<_> = received.iter().map(|m| m.request).collect();
        // The transport reads the configuration once more at the start.
        order.dedup();
        order
    };
    assert_eq!(
        order(first),
        order(second),
        "all is negotiated and said again"
    );
}

/// A backend may drop a kick that comes before it is enabled, and may have died
/// between using a buffer and saying so.
#[test]
fn every_queue_is_kicked_and_every_interrupt_raised_once_after_a_return() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    let old = machine.kick(1);
    let (first, last) = (machine.call(0), machine.call(1));
    let mut raised = 0;
    machine.handle_until("the last ring is started", |_| {
        raised = last.read().unwrap_or(0);
        raised != 0
    });
    assert_eq!((first.read().unwrap(), raised), (1, 1));
    for index in [0, 1] {
        // Before the ring is enabled and behind it.
        assert_eq!(machine.kick(index).read().unwrap(), 2);
    }
    assert!(old.read().is_err(), "a descriptor is given out once");
}

/// Both halves: where the driver's entries are taken and where they are returned.
#[test]
fn a_packed_queue_starts_with_both_wrap_counters_set() {
    let life = Life::new(FEATURES | PACKED, ALL).answer(GET_QUEUE_NUM, Answer::Number(2));
    let backend = Scripted::lives([life]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    let base = rings[1].base;
    drop(machine);
    let received = backend.finish();
    let set = received.iter().find(|m| m.request == SET_FEATURES).unwrap();
    assert_ne!(set.number() & PACKED, 0);
    let start = 0x8000_8000;
    assert_eq!(states(&received, SET_VRING_BASE), [(0, start), (1, start)]);
    let addresses = received.iter().rfind(|m| m.request == SET_VRING_ADDR);
    let words = addresses.unwrap().payload.chunks_exact(8);
    let words: Vec<_> = words
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
        .collect();
    let [_, descriptors, used, available, _] = words[..] else {
        panic!("five words: {words:x?}");
    };
    assert_eq!(used - descriptors, rings[1].used() - base);
    assert_eq!(available - descriptors, rings[1].available() - base);
}

/// A packed queue cannot be resumed even where packets may get lost: the device's order
/// does not tell its position.
#[test]
fn a_packed_queue_whose_backend_is_lost_needs_a_reset() {
    let life = Life::new(FEATURES | PACKED, ALL).answer(GET_QUEUE_NUM, Answer::Number(2));
    let backend = Scripted::lives([life.clone(), life]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings);
    assert!(!machine.has_status(Status::NEEDS_RESET), "and works again");
}

#[test]
fn a_base_is_0_at_first_whatever_the_driver_has_put_in() {
    let backend = Scripted::lives([sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    let [rx, _] = &mut rings();
    machine.negotiate(u64::MAX);
    machine.set_up(rx);
    (0..7).for_each(|_| rx.add(&machine.memory, &BUFFER));
    machine.driver_ok();
    drop(machine);
    assert_eq!(states(&backend.finish(), SET_VRING_BASE), [(0, 0)]);
}

#[test]
fn block_requests_that_were_not_in_flight_are_served_by_the_next_backend() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let [ring, _] = &mut rings();
    machine.bring_up(u64::MAX, std::slice::from_mut(ring));
    ring.add(&machine.memory, &BUFFER);
    ring.set_used(&machine.memory, 1);
    lose(&mut machine, &backend);
    ring.add(&machine.memory, &BUFFER);
    regain(&mut machine);
    drop(machine);
    let second = &backend.finish_lives()[1];
    assert_eq!(states(second, SET_VRING_BASE), [(0, 1)]);
}

#[test]
fn block_requests_in_flight_that_nobody_tracked_need_a_reset() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let mut rings = rings();
    let (one, _) = rings.split_at_mut(1);
    machine.bring_up(u64::MAX, one);
    one[0].add(&machine.memory, &BUFFER);
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, one);
    assert!(!machine.has_status(Status::NEEDS_RESET), "and works again");
    drop(machine);
    let second = &backend.finish_lives()[1];
    assert_eq!(states(second, SET_VRING_BASE), [(0, 0)], "not before");
}

#[test]
fn features_of_the_old_backend_are_not_assumed_of_the_new_one() {
    let more = Life::new(FEATURES | NET_MRG_RXBUF, ALL).answer(GET_QUEUE_NUM, Answer::Number(2));
    let backend = Scripted::lives([more, sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    let chosen = machine.transport.info().features_chosen;
    assert_eq!(chosen, ["VERSION_1"], "the driver is offered what there is");
    drop(machine);
    let second = &backend.finish_lives()[1];
    assert_eq!(count(second, SET_FEATURES), 1);
}

/// Not even after a reset: no driver could do without what it lacks.
#[test]
fn a_legacy_backend_takes_the_place_of_no_other() {
    let legacy = Life::new(FEATURES & !(1 << 32), ALL);
    let backend = Scripted::lives([sound(), legacy, sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    let backend_status = machine.backend.backend_status().clone();
    machine.handle_until("a sound one is met", |_| {
        backend_status.get().connections == 2
    });
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    drop(machine);
    assert_eq!(count(&backend.finish_lives()[1], SET_PROTOCOL_FEATURES), 0);
}

#[test]
fn features_that_the_driver_did_not_take_may_go() {
    let more = Life::new(FEATURES | NET_MRG_RXBUF, ALL).answer(GET_QUEUE_NUM, Answer::Number(2));
    let backend = Scripted::lives([more, sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(!NET_MRG_RXBUF, &mut rings());
    lose(&mut machine, &backend);
    regain(&mut machine);
}

#[test]
fn a_backend_that_has_lost_a_queue_of_the_drivers_is_not_used_for_it() {
    let fewer = sound().answer(GET_QUEUE_NUM, Answer::Number(1));
    let backend = Scripted::lives([sound(), fewer]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings()[..1]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn a_reset_and_a_handshake_need_no_backend() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    rings[0].add(&machine.memory, &BUFFER);
    lose(&mut machine, &backend);
    for _ in 0..3 {
        machine.bring_up(u64::MAX, &mut rings);
        assert!(!machine.has_status(Status::NEEDS_RESET));
    }
    rings[1].add(&machine.memory, &BUFFER);
    regain(&mut machine);
    drop(machine);
    let second = &backend.finish_lives()[1];
    assert_eq!(states(second, SET_VRING_BASE), [(0, 0), (1, 0)]);
    assert_eq!(count(second, SET_FEATURES), 1);
}

#[test]
fn a_driver_in_the_middle_of_its_handshake_goes_on_with_the_next_backend() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    machine.negotiate(u64::MAX);
    lose(&mut machine, &backend);
    machine.write_config(0, &[1]);
    assert_eq!(machine.read_config(0, 4), [0, 1, 2, 3], "as last read");
    let [ring, _] = &mut rings();
    machine.set_up(ring);
    machine.driver_ok();
    regain(&mut machine);
    drop(machine);
    assert_eq!(states(&backend.finish_lives()[1], SET_VRING_BASE), [(0, 0)]);
}

#[test]
fn a_backend_that_dies_in_the_middle_of_a_handshake_is_waited_for() {
    let dying = sound().answer(SET_VRING_KICK, Answer::HangUp);
    let backend = Scripted::lives([dying.clone(), dying, sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    regain(&mut machine);
}

#[test]
fn connections_that_a_dying_listener_accepts_are_no_return() {
    let dead = sound().answer(SET_OWNER, Answer::HangUp);
    let dying = sound().answer(GET_FEATURES, Answer::HangUp);
    let late = sound().answer(SET_FEATURES, Answer::HangUp);
    let backend = Scripted::lives([sound(), dead, dying, late, sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    regain(&mut machine);
}

#[test]
fn a_backend_that_takes_the_connection_and_says_nothing_holds_nobody_up() {
    let silent = sound().answer(GET_FEATURES, Answer::Silence);
    let backend = Scripted::lives([sound(), silent, sound()]);
    let deadline = Duration::from_millis(1500);
    let mut machine = machine(Options {
        deadline,
        ..options(&backend, DeviceType::NET)
    });
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    let call = machine.call(0);
    let start = Instant::now();
    let mut busy = Duration::ZERO;
    while call.read().is_err() {
        assert!(wait(&machine.transport.event_fd().unwrap()));
        let start = Instant::now();
        machine.transport.handle_event();
        busy += start.elapsed();
    }
    assert!(start.elapsed() >= deadline, "it had its time");
    assert!(busy < deadline, "the time was not waited out: {busy:?}");
}

#[test]
fn a_backend_that_hangs_breaks_the_driver_and_serves_it_after_its_reset() {
    let hanging = sound().answer(SET_VRING_KICK, Answer::Silence);
    let backend = Scripted::lives([hanging, sound()]);
    let mut machine = machine(Options {
        deadline: Duration::from_millis(200),
        ..options(&backend, DeviceType::BLK)
    });
    machine.bring_up(u64::MAX, &mut rings());
    assert!(machine.has_status(Status::NEEDS_RESET));
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    regain(&mut machine);
}

#[test]
fn a_configuration_that_is_another_is_announced() {
    let config = [&[0, 96, 0].map(u32::to_ne_bytes).concat()[..], &[7; 96]].concat();
    let changed = sound().answer(GET_CONFIG, Answer::Payload(config));
    let backend = Scripted::lives([sound(), changed]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    machine.bring_up(u64::MAX, &mut rings());
    let generation = machine.read(Register::ConfigGeneration);
    lose(&mut machine, &backend);
    regain(&mut machine);
    assert!(machine.config_call().read().is_ok());
    assert_eq!(machine.read_config(0, 2), [7, 7]);
    assert_ne!(machine.read(Register::ConfigGeneration), generation);
    assert_eq!(machine.read(Register::InterruptStatus), 3);
}

#[test]
fn without_reconnection_a_loss_is_for_good() {
    let backend = Scripted::lives([sound()]);
    let mut machine = machine(Options {
        reconnect: Reconnect::Off,
        ..options(&backend, DeviceType::NET)
    });
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    backend.die();
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET));
}

#[test]
fn patience_with_a_backend_ends_when_it_is_told_to() {
    let backend = Scripted::lives([sound()]);
    let limit = Duration::from_millis(300);
    let mut machine = machine(Options {
        reconnect: Reconnect::For(limit),
        ..options(&backend, DeviceType::NET)
    });
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    let start = Instant::now();
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    assert!(start.elapsed() >= limit);
    machine.bring_up(u64::MAX, &mut rings);
    assert!(machine.has_status(Status::NEEDS_RESET), "it stays lost");
    let event = machine.transport.handle_event();
    assert!(matches!(event, DeviceEvent::Nothing), "{event:?}");
}

const INFLIGHT: u64 = 1 << 12;

/// Where a region is: size and offset, queues and their size, and padding.
fn region(size: u64, offset: u64, queues: u16) -> Vec<u8> {
    let place = [size, offset].map(u64::to_ne_bytes).concat();
    let shape = [queues, 256, 0, 0].map(u16::to_ne_bytes).concat();
    [place, shape].concat()
}

/// A backend that tracks requests, in a file of its own.
fn tracking() -> (Life, u64) {
    let file = Arc::new(tempfile::tempfile().unwrap());
    let inode = file.metadata().unwrap().ino();
    let life = Life::new(FEATURES, ALL | INFLIGHT)
        .answer(GET_QUEUE_NUM, Answer::Number(2))
        .answer(GET_INFLIGHT_FD, Answer::File(region(4096, 8192, 2), file));
    (life, inode)
}

#[test]
fn tracked_requests_in_flight_go_to_the_next_backend() {
    let ((first, inode), (second, _)) = (tracking(), tracking());
    let backend = Scripted::lives([first, second.clone(), second]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    (0..4).for_each(|_| rings[0].add(&machine.memory, &BUFFER));
    rings[0].set_used(&machine.memory, 1);
    for _ in 0..2 {
        lose(&mut machine, &backend);
        regain(&mut machine);
    }
    drop(machine);
    let lives = backend.finish_lives();
    assert_eq!(count(&lives[0], GET_INFLIGHT_FD), 1);
    let asked = lives[0].iter().find(|m| m.request == GET_INFLIGHT_FD);
    assert_eq!(asked.unwrap().payload, region(0, 0, 2));
    for life in &lives {
        let given: Vec<_> = life
            .iter()
            .filter(|m| m.request == SET_INFLIGHT_FD)
            .collect();
        assert_eq!(given.len(), 1);
        assert_eq!(given[0].payload, region(4096, 8192, 2));
        assert_eq!(given[0].inode, Some(inode), "the first one's");
        let at = |request| life.iter().position(|m| m.request == request).unwrap();
        assert!(at(SET_FEATURES) < at(SET_INFLIGHT_FD));
        assert!(at(SET_INFLIGHT_FD) < at(SET_VRING_KICK));
    }
    assert_eq!(count(&lives[1], GET_INFLIGHT_FD), 0);
    assert_eq!(states(&lives[2], SET_VRING_BASE), [(0, 1), (1, 0)]);
}

/// The base is that of a record which the lost backend may not have begun.
#[test]
fn a_packed_queue_goes_on_where_the_record_of_it_says() {
    let life = |base: u32| {
        let (life, inode) = tracking();
        let stopped = [0, base].map(u32::to_ne_bytes).concat();
        let life = life
            .answer(GET_FEATURES, Answer::Number(FEATURES | PACKED))
            .answer(GET_VRING_BASE, Answer::Payload(stopped));
        (life, inode)
    };
    let ((first, inode), (second, _)) = (life(0x8003_8003), life(0));
    let backend = Scripted::lives([first, second.clone(), second]);
    let (mut machine, _) = supervised(options(&backend, DeviceType::BLK), &backend);
    let [ring, _] = &mut rings();
    machine.bring_up(u64::MAX, std::slice::from_mut(ring));
    machine.replace_backend().unwrap();
    regain(&mut machine);
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    let lives = backend.finish_lives();
    let bases = lives.iter().map(|life| states(life, SET_VRING_BASE));
    let bases: Vec<_> = bases.flatten().map(|(_, base)| base).collect();
    assert_eq!(bases, [0x8000_8000, 0x8003_8003, 0x8003_8003]);
    for life in &lives {
        let given = life.iter().find(|m| m.request == SET_INFLIGHT_FD);
        assert_eq!(given.unwrap().inode, Some(inode), "the first one's");
    }
}

/// What the last driver left must not be served to the next.
#[test]
fn a_reset_begins_a_new_record_of_requests() {
    let (life, inode) = tracking();
    let (next, next_inode) = tracking();
    let backend = Scripted::lives([life, next]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    machine.bring_up(u64::MAX, &mut rings);
    lose(&mut machine, &backend);
    machine.bring_up(u64::MAX, &mut rings);
    regain(&mut machine);
    drop(machine);
    let lives = backend.finish_lives();
    let given = |life: &[Received]| -> Vec<_> {
        let given = life.iter().filter(|m| m.request == SET_INFLIGHT_FD);
        given.map(|message| message.inode.unwrap()).collect()
    };
    assert_eq!(count(&lives[0], GET_INFLIGHT_FD), 2);
    assert_eq!(given(&lives[0]), [inode, inode]);
    assert_eq!(given(&lives[1]), [next_inode]);
}

#[test]
fn a_backend_that_does_not_track_cannot_take_over_from_one_that_did() {
    let backend = Scripted::lives([tracking().0, sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let mut rings = rings();
    machine.bring_up(u64::MAX, &mut rings);
    rings[0].add(&machine.memory, &BUFFER);
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
}

/// libvhost-user says so by a size of 0, and so do others that failed.
#[test]
fn a_backend_that_has_no_region_to_give_is_one_that_does_not_track() {
    let (life, _) = tracking();
    let none = life.answer(GET_INFLIGHT_FD, Answer::Payload(region(0, 0, 0)));
    let backend = Scripted::lives([none.clone(), none]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    assert_eq!(count(&backend.finish(), SET_INFLIGHT_FD), 0);
}

const BACKEND_REQ: u64 = 1 << 5;

#[test]
fn the_socket_for_the_backends_requests_comes_before_any_ring_in_each_life() {
    let life = Life::new(FEATURES, ALL | BACKEND_REQ).answer(GET_QUEUE_NUM, Answer::Number(2));
    let backend = Scripted::lives([life.clone(), life]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    // To close it does no harm.
    backend.ask_no_more();
    assert!(wait(&machine.transport.event_fd().unwrap()));
    let event = machine.transport.handle_event();
    assert!(matches!(event, DeviceEvent::Nothing), "{event:?}");
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    for life in backend.finish_lives() {
        let at = |request| life.iter().position(|m| m.request == request).unwrap();
        assert!(life[at(SET_BACKEND_REQ_FD)].inode.is_some());
        assert!(at(SET_BACKEND_REQ_FD) < at(SET_FEATURES));
        assert!(at(SET_BACKEND_REQ_FD) < at(SET_VRING_ENABLE));
    }
}

/// However long it has been away: nobody looks for it, and it is heard at once.
#[test]
fn a_backend_that_connects_late_is_met_when_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("frontend.sock");
    let first = Scripted::dialling(socket.clone(), [sound()]);
    let options = Options {
        address: Address::Listen(socket.clone()),
        connect_deadline: Duration::from_secs(20),
        ..options(&first, DeviceType::NET)
    };
    let mut machine = machine(options);
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &first);
    // The pause after the loss ends, and nobody is there.
    assert!(wait(&machine.transport.event_fd().unwrap()));
    machine.transport.handle_event();
    let longest_pause = Duration::from_secs(1);
    let ready = machine.transport.event_fd().unwrap();
    assert!(!support::is_readable_within(&ready, 2 * longest_pause));
    let _second = Scripted::dialling(socket.clone(), [sound()]);
    regain(&mut machine);
}

/// A backend that connects to the frontend, one connection a life.
#[test]
fn backends_may_be_those_who_connect() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("frontend.sock");
    let backend = Scripted::dialling(socket.clone(), [sound(), sound()]);
    let options = Options {
        address: Address::Listen(socket.clone()),
        connect_deadline: Duration::from_secs(20),
        ..options(&backend, DeviceType::NET)
    };
    let mut machine = machine(options);
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    assert_eq!(backend.finish_lives().len(), 2);
    assert!(!socket.exists());
}

#[test]
fn a_backend_that_comes_back_to_a_paused_device_waits_too() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    machine.pause();
    lose(&mut machine, &backend);
    let backend_status = machine.backend.backend_status().clone();
    machine.handle_until("the backend is back", |_| {
        backend_status.get().connections == 2
    });
    // A ring that is started raises its interrupt once.
    let call = machine.call(0);
    assert!(call.read().is_err(), "nothing runs yet");
    machine.unpause();
    assert!(call.read().is_ok(), "now it does");
    assert!(!machine.has_status(Status::NEEDS_RESET));
    drop(machine);
    assert_eq!(count(&backend.finish_lives()[1], SET_VRING_KICK), 2);
}

const STATUS: u64 = 1 << 16;

/// A backend may look at its rings when it hears of DRIVER_OK, and only then.
#[test]
fn the_driver_is_ready_when_its_rings_are_started_in_each_life() {
    for paused in [false, true] {
        let life = || Life::new(FEATURES, ALL | STATUS).answer(GET_QUEUE_NUM, Answer::Number(2));
        let backend = Scripted::lives([life(), life()]);
        let mut machine = machine(options(&backend, DeviceType::NET));
        machine.bring_up(u64::MAX, &mut rings());
        if paused {
            machine.pause();
        }
        lose(&mut machine, &backend);
        let backend_status = machine.backend.backend_status().clone();
        machine.handle_until("the backend is back", |_| {
            backend_status.get().connections == 2
        });
        if paused {
            machine.unpause();
        }
        assert!(!machine.has_status(Status::NEEDS_RESET));
        drop(machine);
        for life in backend.finish_lives() {
            let statuses = life.iter().filter(|m| m.request == SET_STATUS);
            let statuses: Vec<_> = statuses.map(Received::number).collect();
            assert_eq!(statuses, [0xb, 0xf]);
            let last = |request| life.iter().rposition(|m| m.request == request);
            assert!(last(SET_VRING_KICK) < last(SET_STATUS), "paused={paused}");
        }
    }
}

/// Connections to processes that can be ended from here, as far as it knows.
struct Supervisor {
    socket: PathBuf,
    said: Arc<Mutex<Vec<&'static str>>>,
}

impl Connector for Supervisor {
    fn connect(&mut self) -> Result<UnixStream, Problem> {
        let waited = Duration::ZERO;
        UnixStream::connect(&self.socket).map_err(|source| Problem::Connect { waited, source })
    }

    fn kill(&mut self) -> bool {
        self.said.lock().unwrap().push("kill");
        true
    }

    fn is_supervisor(&self) -> bool {
        true
    }

    fn replace(&mut self) {
        self.said.lock().unwrap().push("replace");
    }
}

type Said = Arc<Mutex<Vec<&'static str>>>;

fn supervised(options: Options, backend: &Scripted) -> (Machine, Said) {
    let memory = support::shared_memory();
    let said = Said::default();
    let supervisor = Supervisor {
        socket: backend.socket.clone(),
        said: said.clone(),
    };
    let frontend = Frontend::with(options, memory.clone(), Box::new(supervisor)).unwrap();
    (Machine::new(frontend, memory), said)
}

/// What has been killed is not at work any more, however it hung.
#[test]
fn a_backend_that_hangs_and_can_be_killed_needs_no_reset() {
    let hanging = sound().answer(SET_VRING_KICK, Answer::Silence);
    let backend = Scripted::lives([hanging, sound()]);
    let options = Options {
        deadline: Duration::from_millis(200),
        ..options(&backend, DeviceType::BLK)
    };
    let (mut machine, said) = supervised(options, &backend);
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
    regain(&mut machine);
    assert_eq!(*said.lock().unwrap(), ["kill"]);
}

#[test]
fn a_backend_that_hangs_over_the_same_thing_again_needs_a_reset() {
    let hanging = sound().answer(SET_VRING_KICK, Answer::Silence);
    let backend = Scripted::lives([hanging.clone(), hanging, sound()]);
    let options = Options {
        deadline: Duration::from_millis(200),
        ..options(&backend, DeviceType::BLK)
    };
    let (mut machine, said) = supervised(options, &backend);
    machine.bring_up(u64::MAX, &mut rings());
    expect_needs_reset(&mut machine);
    assert_eq!(*said.lock().unwrap(), ["kill", "kill"]);
}

/// Even requests that nobody tracks are not in flight then.
#[test]
fn a_backend_that_is_replaced_stops_its_rings_first() {
    let stopping = sound().answer(
        GET_VRING_BASE,
        Answer::Payload([0u32, 2].map(u32::to_ne_bytes).concat()),
    );
    let backend = Scripted::lives([stopping, sound()]);
    // A request that is not taken is waited for.
    let options = Options {
        drain_deadline: Duration::from_secs(1),
        ..options(&backend, DeviceType::BLK)
    };
    let (mut machine, said) = supervised(options, &backend);
    let [ring, _] = &mut rings();
    machine.bring_up(u64::MAX, std::slice::from_mut(ring));
    (0..3).for_each(|_| ring.add(&machine.memory, &BUFFER));
    ring.set_used(&machine.memory, 2);
    machine.replace_backend().unwrap();
    assert_eq!(*said.lock().unwrap(), ["replace"]);
    regain(&mut machine);
    drop(machine);
    let lives = backend.finish_lives();
    assert_eq!(states(&lives[0], GET_VRING_BASE), [(0, 0)]);
    assert_eq!(states(&lives[1], SET_VRING_BASE), [(0, 2)]);
}

#[test]
fn only_a_supervised_backend_can_be_replaced() {
    let backend = Scripted::lives([sound()]);
    let mut machine = machine(options(&backend, DeviceType::BLK));
    let error = machine.replace_backend().unwrap_err();
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("exec="), "{cause}");
}

const DEVICE_STATE: u64 = 1 << 19;

/// One that exchanges its own state through `file`.
fn with_state(content: &[u8]) -> (Life, Arc<File>) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file.rewind().unwrap();
    let file = Arc::new(file);
    let done = 0u64.to_ne_bytes().to_vec();
    let life = Life::new(FEATURES, ALL | DEVICE_STATE)
        .answer(GET_QUEUE_NUM, Answer::Number(2))
        .answer(SET_DEVICE_STATE_FD, Answer::File(done, file.clone()))
        .answer(CHECK_DEVICE_STATE, Answer::Number(0));
    (life, file)
}

#[test]
fn a_backend_that_is_replaced_hands_its_own_state_to_the_next_one() {
    let ((first, _), (second, loaded)) = (with_state(b"open files"), with_state(b""));
    let backend = Scripted::lives([first, second]);
    let (mut machine, _) = supervised(options(&backend, DeviceType::FS), &backend);
    machine.bring_up(u64::MAX, &mut rings());
    machine.replace_backend().unwrap();
    regain(&mut machine);
    drop(machine);
    let lives = backend.finish_lives();
    let order = |life: usize, first, then| {
        let at = |request| lives[life].iter().position(|m| m.request == request);
        assert!(at(first).unwrap() < at(then).unwrap());
    };
    order(0, GET_VRING_BASE, SET_DEVICE_STATE_FD);
    order(1, SET_DEVICE_STATE_FD, SET_VRING_KICK);
    let directions = lives.iter().map(|life| {
        let message = life.iter().find(|m| m.request == SET_DEVICE_STATE_FD);
        message.unwrap().state()
    });
    assert_eq!(
        directions.collect::<Vec<_>>(),
        [(0, 0), (1, 0)],
        "save, load"
    );
    let mut text = String::new();
    (&*loaded).rewind().unwrap();
    (&*loaded).read_to_string(&mut text).unwrap();
    assert_eq!(text, "open files");
}

#[test]
fn a_state_that_nobody_can_load_needs_a_reset() {
    let (first, _) = with_state(b"open files");
    let backend = Scripted::lives([first, sound()]);
    let (mut machine, _) = supervised(options(&backend, DeviceType::FS), &backend);
    machine.bring_up(u64::MAX, &mut rings());
    machine.replace_backend().unwrap();
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings());
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

const MEMORY_SLOTS: u64 = 1 << 15;

fn with_slots(slots: u64) -> Life {
    Life::new(FEATURES, ALL | MEMORY_SLOTS)
        .answer(GET_QUEUE_NUM, Answer::Number(2))
        .answer(GET_MAX_MEM_SLOTS, Answer::Number(slots))
}

#[test]
fn memory_is_added_and_removed_region_by_region_where_the_backend_says_how_many() {
    let backend = Scripted::lives([with_slots(2), with_slots(2)]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    regain(&mut machine);
    drop(machine);
    let [first, second] = &backend.finish_lives()[..] else {
        panic!("two lives");
    };
    let counts = |life| [ADD_MEM_REG, REM_MEM_REG, SET_MEM_TABLE].map(|code| count(life, code));
    assert_eq!((counts(first), counts(second)), ([4, 2, 0], [2, 0, 0]));
    let added = first.iter().filter(|m| m.request == ADD_MEM_REG);
    assert!(
        added
            .clone()
            .all(|m| m.inode.is_some() && m.payload.len() == 40)
    );
    let addresses: Vec<_> = added
        .map(|m| u64::from_ne_bytes(m.payload[8..16].try_into().unwrap()))
        .collect();
    assert_eq!(addresses, [0, 1 << 32, 0, 1 << 32]);
}

#[test]
fn a_backend_with_too_few_memory_slots_is_not_used() {
    let backend = Scripted::lives([with_slots(2), with_slots(1)]);
    let mut machine = machine(options(&backend, DeviceType::NET));
    machine.bring_up(u64::MAX, &mut rings());
    lose(&mut machine, &backend);
    expect_needs_reset(&mut machine);
    machine.bring_up(u64::MAX, &mut rings());
    assert!(machine.has_status(Status::NEEDS_RESET), "nor after a reset");
    drop(machine);
    assert_eq!(count(&backend.finish_lives()[1], ADD_MEM_REG), 0);
}

#[test]
fn too_few_memory_slots_are_found_before_there_is_a_guest() {
    let backend = Scripted::lives([with_slots(1)]);
    let options = options(&backend, DeviceType::NET);
    let error = Frontend::connect(options, support::shared_memory());
    let problem = error.err().unwrap().problem;
    assert!(
        matches!(
            problem,
            Problem::TooFewMemorySlots {
                needed: 2,
                found: 1
            }
        ),
        "{problem}"
    );
}
