//! The register page against a model that was written from the specification
//! alone: after any sequence of writes, every register reads what it says.

use std::sync::Mutex;

use proptest::prelude::*;

use super::super::fakes::{FakeDevice, FakeHypervisor, Script};
use super::*;
use crate::bus::BusDevice;

const RAM: u64 = 1 << 20;
const SIZES: [u16; 2] = [256, 32];
/// What the device offers: VERSION_1, RING_PACKED, EVENT_IDX, bit 0; and
/// PROTOCOL_FEATURES, which never reaches the driver.
const DEVICE: u64 = OFFERED | 1 << 30;
const OFFERED: u64 = 1 << 32 | PACKED | 1 << 29 | 1;
const PACKED: u64 = 1 << 34;

/// One thing that can happen to a transport.
#[derive(Clone, Debug)]
enum Event {
    Write(u16, u32),
    ConfigByte(u8, u8),
    DeviceConfig(u8),
    Broken,
}

#[derive(Clone, Copy, Default)]
struct Queue {
    size: u32,
    addresses: [u64; 3],
    ready: bool,
}

/// The guest-visible state, from virtio 1.3, sections 2.1, 3.1 and 4.2.2, and
/// this transport's own rules on interrupts.
#[derive(Default)]
struct Model {
    status: u32,
    device_sel: u32,
    driver_sel: u32,
    driver: [u32; 2],
    queue_sel: u32,
    queues: [Queue; 2],
    config: [u8; 4],
    config_pending: bool,
}

impl Model {
    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Write(offset, value) => self.write(offset, value),
            Event::ConfigByte(at, value) => self.config[usize::from(at)] = value,
            Event::DeviceConfig(value) => {
                self.config = [value; 4];
                self.announce();
            }
            Event::Broken => {
                self.status |= 64;
                self.announce();
            }
        }
    }

    fn announce(&mut self) {
        self.config_pending |= self.status & 4 != 0;
    }

    fn write(&mut self, offset: u16, value: u32) {
        match offset {
            0x14 => self.device_sel = value,
            0x20 if self.status & 8 == 0 && self.driver_sel < 2 => {
                self.driver[self.driver_sel as usize] = value;
            }
            0x24 => self.driver_sel = value,
            0x30 => self.queue_sel = value,
            0x38 => self.change_queue(|queue| queue.size = value),
            0x44 => self.write_ready(value),
            0x64 if value & 2 != 0 => self.config_pending = false,
            0x70 => self.write_status(value),
            0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4 => self.change_queue(|queue| {
                let address = &mut queue.addresses[usize::from(offset - 0x80) / 0x10];
                let shift = if offset & 4 == 0 { 0 } else { 32 };
                *address = *address & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }),
            _ => {}
        }
    }

    fn change_queue(&mut self, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queues.get_mut(self.queue_sel as usize)
            && !queue.ready
        {
            change(queue);
        }
    }

    fn write_ready(&mut self, value: u32) {
        let index = self.queue_sel as usize;
        let Some(queue) = self.queues.get_mut(index) else {
            return;
        };
        match value {
            0 => queue.ready = false,
            1 => queue.ready |= is_queue(queue, SIZES[index], is_packed(self.driver)),
            _ => {}
        }
    }

    /// DRIVER_OK: what is no queue with the features that were settled is not one.
    fn start(&mut self) {
        for (queue, max) in self.queues.iter_mut().zip(SIZES) {
            queue.ready &= is_queue(queue, max, is_packed(self.driver));
        }
    }

    fn write_status(&mut self, value: u32) {
        let old = self.status;
        if value == 0 {
            let config = self.config;
            let (device_sel, queue_sel) = (0, self.queue_sel);
            *self = Self {
                config,
                device_sel,
                queue_sel,
                ..Self::default()
            };
        } else if value & !0xcf != 0 {
        } else if old == 128 && value & !64 != 128 {
            self.advance(1, (value | 1) & !128);
        } else if old & 128 != 0 {
        } else if value & 128 != 0 {
            self.status |= 128;
        } else {
            self.advance(old, value);
        }
    }

    fn advance(&mut self, old: u32, value: u32) {
        if old & !64 & !value == 0 && in_order(value) && self.may_take(value) {
            self.status = old | value & !64;
            if self.status & !old & 4 != 0 {
                self.start();
            }
        }
    }

    fn may_take(&self, value: u32) -> bool {
        let chosen = u64::from(self.driver[1]) << 32 | u64::from(self.driver[0]);
        let acceptable = chosen & !OFFERED == 0 && chosen & 1 << 32 != 0;
        value & 8 == 0 || self.status & 8 != 0 || acceptable
    }

    fn read(&self, offset: u16) -> u32 {
        let queue = self.queues.get(self.queue_sel as usize);
        match offset {
            0x00 => 0x7472_6976,
            0x04 => 2,
            0x08 => 2,
            0x0c => u32::from_le_bytes(*b"OUTB"),
            0x10 if self.device_sel < 2 => (OFFERED >> (32 * self.device_sel)) as u32,
            0x34 => queue.map_or(0, |_| SIZES[self.queue_sel as usize].into()),
            0x44 => queue.is_some_and(|queue| queue.ready).into(),
            0x60 if self.status & 4 == 0 => 0,
            0x60 => 1 | u32::from(self.config_pending) << 1,
            0x70 => self.status,
            0xb0 | 0xb4 | 0xb8 | 0xbc => 0xffff_ffff,
            0x100 => u32::from_le_bytes(self.config),
            _ => 0,
        }
    }
}

fn in_order(status: u32) -> bool {
    let implies = |bit, before| status & bit == 0 || status & before != 0;
    implies(2, 1) && implies(8, 2) && implies(4, 8)
}

fn is_packed(driver: [u32; 2]) -> bool {
    u64::from(driver[1]) << 32 & PACKED != 0
}

fn is_queue(queue: &Queue, max: u16, packed: bool) -> bool {
    let size = u64::from(queue.size);
    let parts = if packed {
        [(16, 16 * size), (4, 4), (4, 4)]
    } else {
        [(16, 16 * size), (2, 6 + 2 * size), (4, 6 + 8 * size)]
    };
    let fits = queue.addresses.iter().zip(parts).all(|(at, (align, len))| {
        at % align == 0 && at.checked_add(len).is_some_and(|end| end <= RAM)
    });
    let allowed = queue.size.count_ones() == 1 || packed && queue.size > 0;
    allowed && queue.size <= max.into() && fits
}

/// Values that lead somewhere more often than random ones.
fn value() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => prop::sample::select(vec![0u32, 1, 3, 11, 15, 2, 5, 64 + 15, 128 + 15]),
        2 => prop::sample::select(vec![OFFERED as u32, 16, 32, 256, 0x1000, 0x2002]),
        1 => any::<u32>(),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let registers: Vec<u16> = Register::ALL.iter().map(|r| *r as u16).collect();
    prop_oneof![
        20 => (prop::sample::select(registers), value()).prop_map(|(r, v)| Event::Write(r, v)),
        2 => (0..4u8, any::<u8>()).prop_map(|(at, value)| Event::ConfigByte(at, value)),
        2 => any::<u8>().prop_map(Event::DeviceConfig),
        1 => Just(Event::Broken),
    ]
}

/// The writes of a good driver, into which the random ones are mixed: it would
/// take long for chance to get through a handshake.
fn handshake() -> Vec<Event> {
    [
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 0),
        (0x38, 16),
        (0x80, 0x1000),
        (0x90, 0x2000),
        (0xa0, 0x3000),
        (0x44, 1),
        (0x70, 15),
    ]
    .map(|(register, value)| Event::Write(register, value))
    .to_vec()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let random = || prop::collection::vec(event(), 0..40);
    let start = prop::sample::subsequence(handshake(), 0..=12);
    (random(), prop_oneof![Just(handshake()), start], random())
        .prop_map(|(before, start, after)| [before, start, after].concat())
}

struct Subject {
    transport: MmioTransport,
    script: Arc<Mutex<Script>>,
}

impl Subject {
    fn new() -> Self {
        let script = Arc::new(Mutex::new(Script {
            config: vec![0; 4],
            ..Script::default()
        }));
        let device = FakeDevice {
            script: script.clone(),
            features: DEVICE,
            queue_sizes: SIZES.to_vec(),
        };
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let transport = MmioTransport::new(
            "subject".into(),
            Box::new(device),
            Arc::new(memory),
            GuestAddress(0xd000_0000),
            5,
            Arc::new(FakeHypervisor::default()),
        );
        Self {
            transport: transport.unwrap(),
            script,
        }
    }

    fn apply(&mut self, event: &Event) {
        let script = || self.script.lock().unwrap();
        match *event {
            Event::Write(offset, value) => {
                // Read-only registers refuse, and the guest sees nothing of it.
                let _ = self.transport.write(offset.into(), &value.to_le_bytes());
            }
            Event::ConfigByte(at, value) => {
                self.transport
                    .write(0x100 + u64::from(at), &[value])
                    .unwrap();
            }
            Event::DeviceConfig(value) => {
                script().config.fill(value);
                script().events.push_back(DeviceEvent::ConfigChanged);
                self.transport.handle_event();
            }
            Event::Broken => {
                let event = DeviceEvent::Broken("broken".into());
                script().events.push_back(event);
                self.transport.handle_event();
            }
        }
    }

    fn read(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.transport.read(offset.into(), &mut data).unwrap();
        u32::from_le_bytes(data)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_register_reads_what_the_model_says(events in events()) {
        let mut subject = Subject::new();
        let mut model = Model::default();
        let mut generation = subject.read(0xfc);
        for event in &events {
            let config = model.config;
            subject.apply(event);
            model.apply(event);
            for offset in (0..0x110).step_by(4).filter(|offset| *offset != 0xfc) {
                prop_assert_eq!(
                    subject.read(offset), model.read(offset),
                    "register {:#x} after {:?}", offset, event
                );
            }
            let changed = subject.read(0xfc) != generation;
            prop_assert_eq!(changed, config != model.config, "generation after {:?}", event);
            generation = subject.read(0xfc);
        }
    }
}
