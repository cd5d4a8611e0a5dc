use std::sync::Mutex;

use super::super::fakes::{Call, FakeDevice, FakeHypervisor, Script};
use super::super::queue::{Format, QueueConfig};
use super::super::status::Status;
use super::*;
use crate::bus::{AccessError, BusDevice};

const BASE: GuestAddress = GuestAddress(0xd000_0000);
const GSI: u32 = 7;
const RAM: usize = 1 << 20;
const FLUSH: u64 = 1 << 9;

const ACK: u32 = 1;
const DRIVER: u32 = ACK | 2;
const FEATURES_OK: u32 = DRIVER | 8;
const DRIVER_OK: u32 = FEATURES_OK | 4;
const NEEDS_RESET: u32 = 64;

struct Fixture {
    transport: MmioTransport,
    hypervisor: Arc<FakeHypervisor>,
    script: Arc<Mutex<Script>>,
}

fn device(script: &Arc<Mutex<Script>>) -> FakeDevice {
    FakeDevice {
        script: script.clone(),
        features: VERSION_1 | FLUSH,
        queue_sizes: vec![256, 64],
    }
}

fn build(device: FakeDevice, hypervisor: &Arc<FakeHypervisor>) -> Result<MmioTransport, Error> {
    let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    MmioTransport::new(
        "disk".into(),
        Box::new(device),
        Arc::new(memory),
        BASE,
        GSI,
        hypervisor.clone(),
    )
}

impl Fixture {
    fn new() -> Self {
        let script = Arc::new(Mutex::new(Script {
            config: vec![1, 2, 3, 4, 5, 6, 7, 8],
            ..Script::default()
        }));
        let hypervisor = Arc::new(FakeHypervisor::default());
        Self {
            transport: build(device(&script), &hypervisor).unwrap(),
            hypervisor,
            script,
        }
    }

    /// A transport whose driver has set up queue 0 and is done.
    fn running() -> Self {
        let mut fixture = Self::new();
        fixture.negotiate(VERSION_1);
        fixture.set_up_queue(0);
        fixture.write(Register::Status, DRIVER_OK);
        assert_eq!(fixture.read(Register::Status), DRIVER_OK);
        fixture.take_calls();
        fixture
    }

    fn script(&self) -> std::sync::MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.script().calls)
    }

    fn read(&mut self, register: Register) -> u32 {
        let mut data = [0; 4];
        self.transport
            .read(register.offset() as u64, &mut data)
            .unwrap();
        u32::from_le_bytes(data)
    }

    fn read_config(&mut self) -> [u8; 8] {
        let mut data = [0; 8];
        self.transport.read(0x100, &mut data).unwrap();
        data
    }

    fn write(&mut self, register: Register, value: u32) {
        self.transport
            .write(register.offset() as u64, &value.to_le_bytes())
            .unwrap();
    }

    fn choose(&mut self, features: u64) {
        for half in [0, 1] {
            self.write(Register::DriverFeaturesSel, half);
            let value = (features >> (32 * half)) as u32;
            self.write(Register::DriverFeatures, value);
        }
    }

    fn negotiate(&mut self, features: u64) {
        self.write(Register::Status, ACK);
        self.write(Register::Status, DRIVER);
        self.choose(features);
        self.write(Register::Status, FEATURES_OK);
    }

    fn set_up_queue(&mut self, index: u32) {
        self.write(Register::QueueSel, index);
        self.write(Register::QueueSize, 16);
        self.write(Register::QueueDescLow, 0x1000);
        self.write(Register::QueueDriverLow, 0x2000);
        self.write(Register::QueueDeviceLow, 0x3000);
        self.write(Register::QueueReady, 1);
    }

    fn offered(&mut self) -> u64 {
        let mut features = 0;
        for half in [0, 1] {
            self.write(Register::DeviceFeaturesSel, half);
            features |= u64::from(self.read(Register::DeviceFeatures)) << (32 * half);
        }
        features
    }

    /// How often the configuration interrupt has been raised since last asked.
    fn config_interrupts(&self) -> u64 {
        let irqfds = self.hypervisor.irqfds.lock().unwrap();
        irqfds.last().unwrap().1.read().unwrap_or(0)
    }

    fn emit(&mut self, event: DeviceEvent) {
        self.script().events.push_back(event);
        self.transport.handle_event();
    }
}

fn queue_config() -> QueueConfig {
    QueueConfig {
        format: Format::Split,
        size: 16,
        descriptors: GuestAddress(0x1000),
        available: GuestAddress(0x2000),
        used: GuestAddress(0x3000),
    }
}

#[test]
fn identifies_itself() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.read(Register::MagicValue), 0x7472_6976);
    assert_eq!(fixture.read(Register::Version), 2);
    assert_eq!(fixture.read(Register::DeviceId), 2);
    assert_eq!(fixture.read(Register::Status), 0);
    assert_eq!(fixture.read_config(), [1, 2, 3, 4, 5, 6, 7, 8]);
    for select in [0, 1, 255] {
        fixture.write(Register::ShmSel, select);
        assert_eq!(fixture.read(Register::ShmLenLow), u32::MAX);
        assert_eq!(fixture.read(Register::ShmLenHigh), u32::MAX);
    }
}

#[test]
fn wires_kicks_acknowledgements_interrupts_and_the_page() {
    let fixture = Fixture::new();
    let ioeventfds = fixture.hypervisor.ioeventfds.lock().unwrap();
    let addresses: Vec<_> = ioeventfds.iter().map(|(a, v, _)| (a.0, *v)).collect();
    assert_eq!(
        addresses,
        [(BASE.0 + 0x50, 0), (BASE.0 + 0x50, 1), (BASE.0 + 0x64, 1)]
    );
    let irqfds = fixture.hypervisor.irqfds.lock().unwrap();
    assert_eq!(irqfds.len(), 3, "two queues and the configuration");
    assert!(irqfds.iter().all(|(gsi, _)| *gsi == GSI));
    assert_eq!(*fixture.hypervisor.mapped.lock().unwrap(), [BASE]);
}

#[test]
fn works_on_a_host_without_read_only_slots_and_on_no_worse_one() {
    let script = Arc::default();
    let hypervisor = FakeHypervisor {
        map_error: Some(io::ErrorKind::Unsupported),
        ..Default::default()
    };
    let hypervisor = Arc::new(hypervisor);
    assert!(build(device(&script), &hypervisor).is_ok());
    let hypervisor = FakeHypervisor {
        map_error: Some(io::ErrorKind::OutOfMemory),
        ..Default::default()
    };
    let hypervisor = Arc::new(hypervisor);
    let error = build(device(&script), &hypervisor).err().unwrap();
    assert!(matches!(error, Error::Host { .. }), "{error}");
}

#[test]
fn refuses_devices_that_it_cannot_present() {
    let script: Arc<Mutex<Script>> = Arc::default();
    let hypervisor = Arc::new(FakeHypervisor::default());
    let legacy = FakeDevice {
        features: FLUSH,
        ..device(&script)
    };
    let error = build(legacy, &hypervisor).err().unwrap();
    assert!(matches!(error, Error::Legacy { .. }), "{error}");
    for queue_sizes in [vec![], vec![256, 0], vec![100], vec![65535]] {
        let odd = FakeDevice {
            queue_sizes,
            ..device(&script)
        };
        let error = build(odd, &hypervisor).err().unwrap();
        assert!(matches!(error, Error::QueueSizes { .. }), "{error}");
    }
    script.lock().unwrap().fail_read_config = true;
    let error = build(device(&script), &hypervisor).err().unwrap();
    assert!(matches!(error, Error::Config { .. }), "{error}");
}

#[test]
fn a_whole_handshake_starts_the_ready_queues_only() {
    let mut fixture = Fixture::new();
    fixture.negotiate(VERSION_1 | FLUSH);
    assert_eq!(fixture.read(Register::Status), FEATURES_OK);
    fixture.set_up_queue(1);
    assert_eq!(fixture.read(Register::QueueReady), 1);
    assert_eq!(fixture.take_calls(), [], "before DRIVER_OK");
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(
        fixture.take_calls(),
        [
            Call::Activate(VERSION_1 | FLUSH),
            Call::Start(1, queue_config()),
            Call::Begin,
        ]
    );
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(fixture.take_calls(), [], "once");
}

#[test]
fn wrong_orders_start_nothing() {
    for order in [
        vec![DRIVER_OK],
        vec![DRIVER],
        vec![ACK, DRIVER, DRIVER | 4],
        vec![ACK, ACK | 8],
        vec![ACK, DRIVER, DRIVER | 128, FEATURES_OK, DRIVER_OK],
        vec![DRIVER_OK, 0, DRIVER_OK],
    ] {
        let mut fixture = Fixture::new();
        for &value in &order {
            fixture.write(Register::Status, value);
        }
        let calls = fixture.take_calls();
        let started = calls.iter().any(|call| *call != Call::Reset);
        assert!(!started, "{order:?}: {calls:?}");
        assert_eq!(fixture.read(Register::Status) & 4, 0, "{order:?}");
    }
}

#[test]
fn what_the_transport_cannot_do_is_never_offered() {
    let script = Arc::default();
    let everything = FakeDevice {
        features: u64::MAX,
        ..device(&script)
    };
    let hypervisor = Arc::new(FakeHypervisor::default());
    let mut fixture = Fixture {
        transport: build(everything, &hypervisor).unwrap(),
        hypervisor,
        script,
    };
    let offered = fixture.offered();
    assert_eq!(offered, features::offerable(u64::MAX));
    let sr_iov = 1 << 37;
    fixture.negotiate(VERSION_1 | sr_iov);
    assert_eq!(fixture.read(Register::Status), DRIVER, "refused");
    fixture.choose(VERSION_1);
    fixture.write(Register::Status, FEATURES_OK);
    assert_eq!(
        fixture.read(Register::Status),
        FEATURES_OK,
        "second thoughts"
    );
}

#[test]
fn features_are_settled_by_features_ok() {
    let mut fixture = Fixture::new();
    fixture.negotiate(VERSION_1);
    fixture.choose(u64::MAX);
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(
        fixture.take_calls(),
        [Call::Activate(VERSION_1), Call::Begin]
    );
}

#[test]
fn queues_that_are_wrong_do_not_become_ready() {
    for (register, value) in [
        (Register::QueueSize, 0),
        (Register::QueueSize, 3),
        (Register::QueueSize, 512),
        (Register::QueueDescLow, 0x1001),
        (Register::QueueDriverLow, RAM as u32),
        (Register::QueueDeviceHigh, 1),
    ] {
        let mut fixture = Fixture::new();
        fixture.negotiate(VERSION_1);
        fixture.set_up_queue(0);
        fixture.write(Register::QueueReady, 0);
        fixture.write(register, value);
        fixture.write(Register::QueueReady, 1);
        assert_eq!(fixture.read(Register::QueueReady), 0, "{register:?}");
        fixture.write(Register::Status, DRIVER_OK);
        assert_eq!(
            fixture.take_calls(),
            [Call::Activate(VERSION_1), Call::Begin]
        );
    }
}

#[test]
fn a_ready_queue_keeps_its_addresses() {
    let mut fixture = Fixture::new();
    fixture.negotiate(VERSION_1);
    fixture.set_up_queue(0);
    fixture.write(Register::QueueDescLow, 0x8000);
    fixture.write(Register::QueueSize, 8);
    fixture.write(Register::QueueReady, 0);
    fixture.write(Register::QueueReady, 1);
    fixture.write(Register::Status, DRIVER_OK);
    assert!(
        fixture
            .take_calls()
            .contains(&Call::Start(0, queue_config()))
    );
}

#[test]
fn queues_that_do_not_exist_have_no_size_and_take_nothing() {
    let mut fixture = Fixture::new();
    for index in [2, 65536, u32::MAX] {
        fixture.set_up_queue(index);
        assert_eq!(fixture.read(Register::QueueSizeMax), 0);
        assert_eq!(fixture.read(Register::QueueReady), 0);
        fixture.write(Register::QueueNotify, index);
    }
    fixture.write(Register::QueueSel, 1);
    assert_eq!(fixture.read(Register::QueueSizeMax), 64);
}

#[test]
fn a_queue_that_becomes_ready_late_starts_at_once_and_stops_alone() {
    let mut fixture = Fixture::running();
    fixture.set_up_queue(1);
    assert_eq!(fixture.take_calls(), [Call::Start(1, queue_config())]);
    fixture.write(Register::QueueReady, 0);
    assert_eq!(fixture.take_calls(), [Call::Stop(1)]);
    assert_eq!(fixture.read(Register::QueueReady), 0);
}

#[test]
fn a_queue_is_reset_alone_where_that_was_agreed() {
    for agreed in [true, false] {
        let script = Arc::default();
        let everything = FakeDevice {
            features: u64::MAX,
            ..device(&script)
        };
        let hypervisor = Arc::new(FakeHypervisor::default());
        let mut fixture = Fixture {
            transport: build(everything, &hypervisor).unwrap(),
            hypervisor,
            script,
        };
        let wanted = if agreed { features::RING_RESET } else { 0 };
        fixture.negotiate(VERSION_1 | wanted);
        fixture.set_up_queue(0);
        fixture.write(Register::Status, DRIVER_OK);
        fixture.take_calls();
        fixture.write(Register::QueueSel, 0);
        fixture.write(Register::QueueReset, 1);
        assert_eq!(fixture.read(Register::QueueReset), 0, "it is over");
        assert_eq!(fixture.read(Register::QueueReady), u32::from(!agreed));
        let expected = if agreed { vec![Call::Stop(0)] } else { vec![] };
        assert_eq!(fixture.take_calls(), expected);
        if agreed {
            fixture.set_up_queue(0);
            assert_eq!(fixture.take_calls(), [Call::Start(0, queue_config())]);
        }
    }
}

#[test]
fn a_reset_stops_what_runs_and_forgets_the_rest() {
    let mut fixture = Fixture::running();
    fixture.write(Register::Status, 0);
    assert_eq!(fixture.take_calls(), [Call::Stop(0), Call::Reset]);
    assert_eq!(fixture.read(Register::Status), 0);
    assert_eq!(fixture.read(Register::QueueReady), 0);
    fixture.negotiate(0);
    assert_eq!(fixture.read(Register::Status), DRIVER, "choices forgotten");
}

#[test]
fn nothing_is_pending_before_the_driver_is_ready() {
    let mut fixture = Fixture::new();
    for _ in 0..2 {
        assert_eq!(fixture.read(Register::InterruptStatus), 0);
        fixture.negotiate(VERSION_1);
        fixture.set_up_queue(0);
        assert_eq!(fixture.read(Register::InterruptStatus), 0);
        fixture.write(Register::Status, DRIVER_OK);
        assert_eq!(fixture.read(Register::InterruptStatus), 1, "ever after");
        fixture.write(Register::InterruptAck, 1);
        assert_eq!(fixture.read(Register::InterruptStatus), 1);
        fixture.write(Register::Status, 0);
    }
}

#[test]
fn a_machine_reset_is_a_device_reset() {
    let mut fixture = Fixture::running();
    fixture.transport.reset();
    assert_eq!(fixture.take_calls(), [Call::Stop(0), Call::Reset]);
    assert_eq!(fixture.read(Register::Status), 0);
}

#[test]
fn a_driver_that_gives_up_has_its_queues_stopped() {
    let mut fixture = Fixture::running();
    fixture.write(Register::Status, DRIVER_OK | 128);
    assert_eq!(fixture.take_calls(), [Call::Stop(0)]);
}

#[test]
fn a_device_that_cannot_start_needs_a_reset_and_gets_another_chance() {
    let mut fixture = Fixture::new();
    fixture.script().fail_start = Some(1);
    fixture.negotiate(VERSION_1);
    fixture.set_up_queue(0);
    fixture.set_up_queue(1);
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(fixture.read(Register::Status), DRIVER_OK | NEEDS_RESET);
    assert_eq!(fixture.config_interrupts(), 1);
    let calls = fixture.take_calls();
    assert_eq!(calls.last(), Some(&Call::Stop(0)), "none is left running");

    fixture.script().fail_start = None;
    fixture.write(Register::Status, 0);
    fixture.negotiate(VERSION_1);
    fixture.set_up_queue(0);
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(fixture.read(Register::Status), DRIVER_OK);
}

#[test]
fn a_device_that_refuses_the_features_needs_a_reset() {
    let mut fixture = Fixture::new();
    fixture.script().fail_activate = true;
    fixture.negotiate(VERSION_1);
    fixture.set_up_queue(0);
    fixture.write(Register::Status, DRIVER_OK);
    assert_eq!(fixture.read(Register::Status), DRIVER_OK | NEEDS_RESET);
    assert_eq!(fixture.take_calls(), [Call::Activate(VERSION_1)]);
}

#[test]
fn a_device_that_breaks_needs_a_reset_and_interrupts() {
    let mut fixture = Fixture::running();
    fixture.emit(DeviceEvent::Broken("gone".into()));
    assert_eq!(fixture.read(Register::Status), DRIVER_OK | NEEDS_RESET);
    assert_eq!(fixture.read(Register::InterruptStatus), 3);
    assert_eq!(fixture.config_interrupts(), 1);
}

#[test]
fn a_device_that_breaks_before_driver_ok_does_not_interrupt() {
    let mut fixture = Fixture::new();
    fixture.emit(DeviceEvent::Broken("gone".into()));
    assert_eq!(fixture.read(Register::Status), NEEDS_RESET);
    assert_eq!(fixture.read(Register::InterruptStatus), 0);
    assert_eq!(fixture.config_interrupts(), 0);
}

#[test]
fn a_configuration_change_is_published_and_announced_until_acknowledged() {
    let mut fixture = Fixture::running();
    let generation = fixture.read(Register::ConfigGeneration);
    fixture.script().config[0] = 99;
    assert_eq!(fixture.read_config()[0], 1, "not before the event");
    fixture.emit(DeviceEvent::ConfigChanged);
    assert_eq!(fixture.read_config()[0], 99);
    assert_ne!(fixture.read(Register::ConfigGeneration), generation);
    assert_eq!(fixture.config_interrupts(), 1);
    assert_eq!(fixture.read(Register::InterruptStatus), 3);
    fixture.write(Register::InterruptAck, 1);
    assert_eq!(fixture.read(Register::InterruptStatus), 3, "the other bit");
    fixture.write(Register::InterruptAck, 3);
    assert_eq!(fixture.read(Register::InterruptStatus), 1);
}

#[test]
fn a_reset_publishes_the_configuration_that_the_device_has_again() {
    let mut fixture = Fixture::running();
    fixture.script().config[0] = 99;
    fixture.emit(DeviceEvent::ConfigChanged);
    fixture.script().config[0] = 1;
    assert_eq!(fixture.read_config()[0], 99);
    fixture.write(Register::Status, 0);
    assert_eq!(fixture.read_config()[0], 1);
    // It is read again only where it has changed.
    fixture.script().config[0] = 99;
    fixture.write(Register::Status, 0);
    assert_eq!(fixture.read_config()[0], 1);
}

#[test]
fn a_reset_reads_the_configuration_until_it_has_it() {
    let mut fixture = Fixture::running();
    fixture.script().config[0] = 99;
    fixture.emit(DeviceEvent::ConfigChanged);
    fixture.script().config[0] = 1;
    fixture.script().fail_read_config = true;
    fixture.write(Register::Status, 0);
    assert_eq!(fixture.read_config()[0], 99, "what is known");
    fixture.script().fail_read_config = false;
    fixture.write(Register::Status, 0);
    assert_eq!(fixture.read_config()[0], 1);
}

#[test]
fn a_configuration_change_before_driver_ok_is_published_only() {
    let mut fixture = Fixture::new();
    fixture.script().config[0] = 99;
    fixture.emit(DeviceEvent::ConfigChanged);
    assert_eq!(fixture.read_config()[0], 99);
    assert_eq!(fixture.config_interrupts(), 0);
    assert_eq!(fixture.read(Register::InterruptStatus), 0);
}

#[test]
fn a_configuration_that_cannot_be_read_again_is_a_breakage() {
    let mut fixture = Fixture::running();
    fixture.script().fail_read_config = true;
    fixture.emit(DeviceEvent::ConfigChanged);
    assert_eq!(fixture.read(Register::Status), DRIVER_OK | NEEDS_RESET);
}

#[test]
fn the_driver_writes_configuration_through_to_the_device() {
    let mut fixture = Fixture::running();
    fixture.transport.write(0x102, &[7, 8]).unwrap();
    assert_eq!(fixture.take_calls(), [Call::WriteConfig(2, vec![7, 8])]);
    assert_eq!(fixture.read_config(), [1, 2, 7, 8, 5, 6, 7, 8]);
    for (offset, len) in [(0x107, 2), (0x108, 1), (0xfff, 1)] {
        let result = fixture.transport.write(offset, &vec![0; len]);
        assert_eq!(result, Err(AccessError::NoRegister), "{offset:#x}+{len}");
    }
    assert_eq!(fixture.take_calls(), []);
}

#[test]
fn a_refused_configuration_write_changes_nothing() {
    let mut fixture = Fixture::running();
    fixture.script().fail_write_config = true;
    fixture.transport.write(0x100, &[7]).unwrap();
    assert_eq!(fixture.read_config()[0], 1);
    assert_eq!(fixture.read(Register::Status), DRIVER_OK);
}

#[test]
fn a_notification_that_exits_kicks_the_queue() {
    let mut fixture = Fixture::running();
    fixture.write(Register::QueueNotify, 1);
    let ioeventfds = fixture.hypervisor.ioeventfds.lock().unwrap();
    assert_eq!(ioeventfds[1].2.read().unwrap(), 1);
    assert!(ioeventfds[0].2.read().is_err(), "only that one");
}

#[test]
fn registers_take_aligned_words_only() {
    let mut fixture = Fixture::new();
    let mut write = |offset, data: &[u8]| fixture.transport.write(offset, data);
    for data in [&[1][..], &[1, 0], &[1, 0, 0, 0, 0, 0, 0, 0], &[]] {
        assert_eq!(write(0x70, data), Err(AccessError::Width));
    }
    assert_eq!(write(0x72, &[0; 4]), Err(AccessError::NoRegister));
    assert_eq!(write(0x18, &[0; 4]), Err(AccessError::NoRegister));
    for read_only in [0x00, 0x10, 0x34, 0x60, 0xb0, 0xfc] {
        assert_eq!(write(read_only, &[1; 4]), Err(AccessError::ReadOnly));
    }
    assert_eq!(fixture.read(Register::Status), 0);
}

#[test]
fn reads_of_any_width_come_from_the_page() {
    let mut fixture = Fixture::new();
    let mut data = [0; 3];
    fixture.transport.read(1, &mut data).unwrap();
    assert_eq!(&data, b"irt");
    let past = fixture.transport.read(4095, &mut [0; 2]);
    assert_eq!(past, Err(AccessError::CrossesEnd));
}

#[test]
fn tells_about_itself() {
    let mut fixture = Fixture::running();
    let sink = {
        let ioeventfds = fixture.hypervisor.ioeventfds.lock().unwrap();
        ioeventfds.last().unwrap().2.try_clone().unwrap()
    };
    sink.write(5).unwrap();
    fixture.write(Register::InterruptAck, 1);
    fixture.write(Register::QueueNotify, 0);
    let info = fixture.transport.info();
    assert_eq!(info.id, "disk");
    assert_eq!(info.status, "ACKNOWLEDGE|DRIVER|FEATURES_OK|DRIVER_OK");
    assert_eq!(info.features_offered, ["BLK_FLUSH", "VERSION_1"]);
    assert_eq!(info.features_chosen, ["VERSION_1"]);
    assert_eq!(info.queues[0].ready, Some(queue_config()));
    assert!(info.queues[0].running && !info.queues[1].running);
    assert_eq!(info.counters.interrupts_acknowledged, 6);
    assert_eq!(info.counters.notify_exits, 1);
    assert!(Status::default().to_string() != info.status);
    let again = fixture.transport.info().counters;
    assert_eq!(again.interrupts_acknowledged, 6, "counted once");
}
