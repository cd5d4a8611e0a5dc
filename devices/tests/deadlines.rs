//! What slow backends cost: one deadline an access, and requests in flight have one of
//! their own. And what is seen of one that does nothing at all.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use devices::vhost_user::{Frontend, Options, Reconnect};
use devices::virtio::DeviceType;
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use support::scripted::{Answer, CONFIG, FEATURES, Life, MQ, REPLY_ACK, Scripted};
use support::{Buffer, Machine, Ring};
use vhost::vhost_user::message::FrontendReq::{self, *};

const QUEUES: u64 = 8;
const DEADLINE: Duration = Duration::from_millis(400);
/// Of one answer, in milliseconds: a ring stops in one deadline, and several do not.
const SLOW: u64 = 100;
/// The same for a ring that starts, which is more to say.
const SLOW_START: u64 = 40;
/// An access takes no longer, on a busy machine either. Half of what a deadline for each
/// queue would come to.
const ENOUGH: Duration = Duration::from_millis(400 * QUEUES / 2);
const BUFFER: Buffer = Buffer {
    address: 0x20000,
    len: 512,
    writable: true,
};

/// A device of eight queues, whose backend is as slow as its test says.
struct Bench {
    machine: Machine,
    backend: Scripted,
    rings: Vec<Ring>,
    pace: Arc<AtomicU64>,
}

impl Bench {
    fn new(device_type: DeviceType, answers: &[(FrontendReq, Answer)]) -> Self {
        let life = Life::new(FEATURES, MQ | REPLY_ACK | CONFIG)
            .answer(GET_QUEUE_NUM, Answer::Number(QUEUES));
        let answers = answers.iter().cloned();
        let life = answers.fold(life, |life, (message, answer)| life.answer(message, answer));
        let pace = life.pace();
        let backend = Scripted::lives([life]);
        let options = Options {
            queues: Some(QUEUES as u16),
            deadline: DEADLINE,
            drain_deadline: 3 * DEADLINE,
            reconnect: Reconnect::Off,
            ..Options::new("dut", device_type, &backend.socket)
        };
        let memory = support::shared_memory();
        let frontend = Frontend::connect(options, memory.clone()).unwrap();
        let rings = (0..QUEUES).map(|n| Ring::new(n as u32, 0x4000 + n * 0x3000));
        Self {
            machine: Machine::new(frontend, memory),
            backend,
            rings: rings.collect(),
            pace,
        }
    }

    /// The same with its driver ready, on so many queues, and a request in flight in the
    /// first.
    fn busy(queues: usize, device_type: DeviceType, answers: &[(FrontendReq, Answer)]) -> Self {
        let mut bench = Self::new(device_type, answers);
        bench.bring_up(queues);
        assert!(!bench.is_broken());
        bench.rings[0].add(&bench.machine.memory, &[BUFFER]);
        bench
    }

    fn bring_up(&mut self, queues: usize) {
        self.machine.bring_up(u64::MAX, &mut self.rings[..queues]);
    }

    fn is_broken(&mut self) -> bool {
        self.machine.has_status(Status::NEEDS_RESET)
    }

    fn set_pace(&self, milliseconds: u64) {
        self.pace.store(milliseconds, Ordering::Relaxed);
    }

    /// How often `message` came, once the frontend is gone.
    fn count(self, message: FrontendReq) -> usize {
        drop(self.machine);
        let received = self.backend.finish();
        received.iter().filter(|m| m.request == message).count()
    }
}

fn took(action: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    action();
    begun.elapsed()
}

#[test]
fn a_write_of_driver_ok_costs_one_deadline_however_many_queues_are_started() {
    let mut bench = Bench::new(DeviceType::BLK, &[]);
    bench.machine.negotiate(u64::MAX);
    for ring in &mut bench.rings {
        bench.machine.set_up(ring);
    }
    bench.set_pace(SLOW_START);
    let took = took(|| bench.machine.driver_ok());
    assert!((DEADLINE..ENOUGH).contains(&took), "{took:?}");
    assert!(bench.is_broken());
    bench.set_pace(0);
    assert!(bench.count(SET_VRING_KICK) < QUEUES as usize);
}

#[test]
fn a_reset_costs_one_deadline_however_many_queues_are_stopped() {
    for by_driver in [true, false] {
        let mut bench = Bench::busy(QUEUES as usize, DeviceType::NET, &[]);
        bench.set_pace(SLOW);
        let took = took(|| match by_driver {
            true => bench.machine.write(Register::Status, 0),
            false => bench.machine.transport.reset(),
        });
        assert!((DEADLINE..ENOUGH).contains(&took), "{took:?}");
        assert_eq!(bench.machine.read(Register::Status), 0);
        bench.set_pace(0);
        assert!(bench.count(GET_VRING_BASE) < QUEUES as usize);
    }
}

#[test]
fn a_pause_costs_one_deadline_however_many_queues_are_stopped() {
    let mut bench = Bench::busy(QUEUES as usize, DeviceType::NET, &[]);
    bench.set_pace(SLOW);
    let took = took(|| bench.machine.pause());
    assert!((DEADLINE..ENOUGH).contains(&took), "{took:?}");
    assert!(bench.is_broken());
}

#[test]
fn requests_in_flight_have_a_deadline_of_their_own() {
    let late = [(GET_VRING_BASE, Answer::Late(2 * DEADLINE))];
    let mut bench = Bench::busy(1, DeviceType::BLK, &late);
    bench.machine.pause();
    bench.machine.unpause();
    assert!(!bench.is_broken(), "paused");
    bench.machine.write(Register::Status, 0);
    bench.bring_up(1);
    assert!(!bench.is_broken(), "reset");
    let took = took(|| bench.machine.pause());
    assert!((DEADLINE..ENOUGH).contains(&took), "{took:?}");
    assert!(bench.is_broken(), "nothing is in flight any more");
    assert_eq!(bench.count(GET_VRING_BASE), 3);
}

#[test]
fn requests_in_flight_of_a_backend_that_does_not_talk_are_not_waited_for() {
    let mut bench = Bench::busy(1, DeviceType::BLK, &[]);
    bench.set_pace(3 * DEADLINE.as_millis() as u64);
    let took = took(|| bench.machine.pause());
    assert!((DEADLINE..ENOUGH).contains(&took), "{took:?}");
    assert!(bench.is_broken());
    bench.set_pace(0);
    assert_eq!(bench.count(GET_VRING_BASE), 0);
}

/// What the driver has broken nobody finishes.
#[test]
fn a_ring_with_more_in_flight_than_fits_in_is_not_waited_for() {
    let mut bench = Bench::busy(1, DeviceType::BLK, &[]);
    for _ in 0..Ring::SIZE {
        bench.rings[0].add(&bench.machine.memory, &[BUFFER]);
    }
    let took = took(|| bench.machine.pause());
    assert!(took < DEADLINE, "{took:?}");
}

/// As it is when the thread that should has ended.
#[test]
fn a_queue_whose_kicks_nobody_reads_though_requests_wait_shows() {
    let mut bench = Bench::busy(1, DeviceType::BLK, &[]);
    let stalled = |machine: &mut Machine| machine.backend.queue_health(0).stalled;
    assert!(stalled(&mut bench.machine).is_zero(), "not looked at yet");
    let machine = &mut bench.machine;
    machine.handle_until("somebody looks", |machine| !stalled(machine).is_zero());
    machine.kick(0).read().unwrap();
    assert!(stalled(machine).is_zero(), "somebody reads them");
    machine.write(Register::QueueNotify, 0);
    assert!(!stalled(machine).is_zero());
    bench.rings[0].set_used(&machine.memory, 1);
    assert!(stalled(machine).is_zero(), "nothing waits");
}
