//! A backend that reports errors on its queues: they are shown, within bounds. Whether the
//! device needs a reset its status says, if it has one.

mod support;

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use devices::vhost_user::{Frontend, Options};
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use devices::virtio::{DeviceEvent, DeviceType};
use support::scripted::{Answer, CONFIG, FEATURES, Life, MQ, REPLY_ACK, Scripted};
use support::{Machine, Ring, is_readable_within};
use tracing::{Event, Level, Metadata, Subscriber, span};
use vhost::vhost_user::message::FrontendReq;

const ALL: u64 = MQ | REPLY_ACK | CONFIG;
const STATUS: u64 = 1 << 16;

fn sound() -> Life {
    offering(ALL | STATUS)
}

fn offering(protocol: u64) -> Life {
    Life::new(FEATURES, protocol)
        .answer(FrontendReq::GET_QUEUE_NUM, Answer::Number(2))
        .answer(FrontendReq::GET_STATUS, Answer::Number(0xf))
}

fn machine(backend: &Scripted) -> Machine {
    let options = Options {
        deadline: Duration::from_secs(20),
        ..Options::new("dut", DeviceType::NET, &backend.socket)
    };
    let memory = support::shared_memory();
    let frontend = Frontend::connect(options, memory.clone()).unwrap();
    let mut machine = Machine::new(frontend, memory);
    bring_up(&mut machine);
    machine
}

fn bring_up(machine: &mut Machine) {
    machine.bring_up(u64::MAX, &mut [Ring::new(0, 0x4000), Ring::new(1, 0x8000)]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

fn signal(mut sign: &File) {
    sign.write_all(&1u64.to_ne_bytes()).unwrap();
}

fn errors(machine: &mut Machine) -> [u64; 2] {
    [0, 1].map(|queue| machine.backend.queue_health(queue).errors)
}

fn has_events(machine: &Machine) -> bool {
    is_readable_within(&machine.transport.event_fd().unwrap(), Duration::ZERO)
}

/// One sign of the backend's, handled.
fn report(machine: &mut Machine, sign: &File) {
    signal(sign);
    assert!(has_events(machine));
    let event = machine.transport.handle_event();
    assert!(matches!(event, DeviceEvent::Nothing), "{event:?}");
    assert!(!has_events(machine), "once");
}

#[test]
fn an_error_counts_for_its_queue_until_the_driver_starts_again_and_does_nothing_else() {
    let backend = Scripted::lives([sound()]);
    let mut machine = machine(&backend);
    let sign = backend.error_sign(1);
    report(&mut machine, &sign);
    assert_eq!(errors(&mut machine), [0, 1]);
    report(&mut machine, &sign);
    assert_eq!(errors(&mut machine), [0, 2]);
    assert!(!machine.has_status(Status::NEEDS_RESET));
    assert!(machine.config_call().read().is_err(), "no interrupt");
    for queue in 0..2 {
        assert!(machine.call(queue).read().is_err(), "no interrupt");
    }
    machine.write(Register::Status, 0);
    bring_up(&mut machine);
    assert_eq!(errors(&mut machine), [0, 0]);
    report(&mut machine, &backend.error_sign(0));
    assert_eq!(errors(&mut machine), [1, 0]);
}

#[test]
fn without_a_status_an_error_means_that_the_device_needs_a_reset() {
    let backend = Scripted::lives([offering(ALL)]);
    let mut machine = machine(&backend);
    let sign = backend.error_sign(1);
    signal(&sign);
    let event = machine.transport.handle_event();
    let DeviceEvent::Broken(reason) = event else {
        panic!("{event:?}");
    };
    let reason = host_io::errors::chain(reason.as_ref());
    assert!(reason.contains("error on queue 1"), "{reason}");
    assert!(machine.has_status(Status::NEEDS_RESET));
    assert!(machine.config_call().read().is_ok(), "the driver is told");
    // Once: its queues are stopped.
    report(&mut machine, &sign);
    assert!(machine.config_call().read().is_err());
    // And serves the driver after its reset.
    machine.write(Register::Status, 0);
    bring_up(&mut machine);
    assert_eq!(errors(&mut machine), [0, 0]);
    drop(machine);
    let stopped = backend.finish();
    let stopped = stopped
        .iter()
        .filter(|m| m.request == FrontendReq::GET_VRING_BASE);
    assert_eq!(
        stopped.map(|m| m.state().0).collect::<Vec<_>>()[..2],
        [0, 1]
    );
}

#[test]
fn a_backend_that_refuses_to_report_errors_serves_all_the_same() {
    let backend = Scripted::lives([sound().answer(FrontendReq::SET_VRING_ERR, Answer::Number(1))]);
    let machine = machine(&backend);
    drop(machine);
    let received = backend.finish();
    let count = |request| received.iter().filter(|m| m.request == request).count();
    assert_eq!(count(FrontendReq::SET_VRING_ERR), 2);
    assert_eq!(count(FrontendReq::SET_VRING_KICK), 2);
}

#[test]
fn signs_of_a_lost_backend_are_not_its_successors() {
    let backend = Scripted::lives([sound(), sound()]);
    let mut machine = machine(&backend);
    let old = backend.error_sign(0);
    backend.die();
    machine.notice_loss();
    signal(&old);
    let call = machine.call(0);
    machine.handle_until("the backend is back", |_| call.read().is_ok());
    signal(&old);
    assert!(!has_events(&machine), "nobody hears it");
    assert_eq!(errors(&mut machine), [0, 0]);
    report(&mut machine, &backend.error_sign(0));
    assert_eq!(errors(&mut machine), [1, 0]);
}

/// Counts warnings of the thread that it is the default of.
struct Warnings(Arc<AtomicUsize>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn event(&self, _event: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

    fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

    fn enter(&self, _span: &span::Id) {}

    fn exit(&self, _span: &span::Id) {}
}

#[test]
fn a_flood_of_errors_is_no_flood_of_warnings() {
    let backend = Scripted::lives([sound()]);
    let mut machine = machine(&backend);
    let sign = backend.error_sign(1);
    let warnings = Arc::new(AtomicUsize::new(0));
    tracing::subscriber::with_default(Warnings(warnings.clone()), || {
        for _ in 0..1000 {
            report(&mut machine, &sign);
        }
    });
    let warned = warnings.load(Ordering::Relaxed);
    assert!((1..=20).contains(&warned), "{warned} warnings");
    assert_eq!(errors(&mut machine), [0, 1000]);
}
