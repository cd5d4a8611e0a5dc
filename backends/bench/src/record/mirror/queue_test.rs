use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::place::DevicePlaces;
use super::*;
use crate::driver::{self, Buffers, Format as RingFormat, Layout, QueueFeatures, USER_BASE};
use crate::follow::Position;
use crate::interpose::{Access, Place};

const SIZE: u16 = 4;
const WRITE: u16 = 2;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// At the first descriptor, with a wrap counter of 1.
const AT_START: u16 = 1 << 15;

#[derive(Default)]
struct Kept {
    requests: Cell<u64>,
    items: RefCell<Vec<Item>>,
}

impl Witness for Kept {
    fn number(&self) -> u64 {
        self.requests.set(self.requests.get() + 1);
        self.requests.get()
    }

    fn now(&self) -> u64 {
        0
    }

    fn tell(&self, item: Item) {
        self.items.borrow_mut().push(item);
    }
}

/// A driver, and a device that fills each buffer with its number, on a ring in two copies.
struct Bench {
    memory: Rc<driver::Memory>,
    view: Memory,
    driver: driver::Queue,
    mirror: Queue,
    device: Addresses,
    kept: Kept,
    /// How far the device has come in a split ring, and in a packed one.
    served_to: u16,
    position: Position,
    served: u8,
}

impl Bench {
    fn new(format: RingFormat, features: u64) -> Self {
        let memory = Rc::new(driver::Memory::new(&[Layout::new(0, 1 << 20)]).unwrap());
        let mut view = Memory::new(Access::ReadWrite);
        let table = memory.table();
        let (region, file) = table.first().unwrap();
        let place = Place::from(region);
        view.add(place, file.try_clone_to_owned().unwrap().into());
        let mut places = DevicePlaces::new().unwrap();
        let (place, file) = places.region(&[place]).unwrap();
        view.add(place, file);
        let queue_features = QueueFeatures {
            format,
            event_idx: features & EVENT_IDX != 0,
            in_order: false,
        };
        let driver = driver::Queue::new(&memory, 0, SIZE, queue_features).unwrap();
        let at = driver.places();
        let device = places.of_queue(0).unwrap();
        let ring = Ring {
            start: Start {
                queue: 0,
                size: SIZE,
                base: driver.base(),
            },
            driver: Addresses {
                descriptors: USER_BASE + at.descriptors,
                driver: USER_BASE + at.driver,
                device: USER_BASE + at.device,
            },
            device,
        };
        let mirror = Queue::start(ring, features, &view).unwrap();
        drop(table);
        Self {
            memory,
            view,
            driver,
            mirror,
            device,
            kept: Kept::default(),
            served_to: 0,
            position: Position::from_bits(AT_START, SIZE),
            served: 0,
        }
    }

    fn serve(&mut self, format: RingFormat) {
        match format {
            RingFormat::Split => self.serve_split(),
            RingFormat::Packed => self.serve_packed(),
        }
    }

    /// Uses what a split ring has.
    fn serve_split(&mut self) {
        let ring = SplitRing::at(&self.view, &self.device, SIZE).unwrap();
        while self.served_to != ring.available() {
            let id = ring.head(self.served_to).into();
            ring.put_used(self.served_to, follow::Used { id, len: 1 });
            self.served_to = self.served_to.wrapping_add(1);
            ring.mark_used(self.served_to);
        }
    }

    /// Uses what a packed ring has.
    fn serve_packed(&mut self) {
        let ring = PackedRing::at(&self.view, &self.device, SIZE).unwrap();
        while ring.is_available(self.position) {
            let chain = ring.chain(&self.view, self.position, SIZE);
            let turn = if self.position.wrap() {
                AVAIL | USED
            } else {
                0
            };
            let flags = turn | WRITE;
            let used = 1 | u64::from(chain.id) << 32 | u64::from(flags) << 48;
            let at = self.device.descriptors + 16 * u64::from(self.position.index());
            let place = self.view.user_slice(at + 8, 8).unwrap();
            place.copy_from(&used.to_le_bytes());
            self.position.advance(chain.descriptors, SIZE);
        }
    }
}

#[test]
fn what_was_available_before_a_ring_starts_is_new_to_the_device() {
    for (format, features) in [(RingFormat::Split, 0), (RingFormat::Packed, RING_PACKED)] {
        let mut bench = Bench::new(format, features);
        for _ in 0..SIZE {
            let buffers = Buffers::place(&bench.memory, &[], 8).unwrap();
            bench.driver.add(buffers.chain()).unwrap();
        }
        bench.mirror = Queue::start(bench.mirror.ring, features, &bench.view).unwrap();
        bench.serve(format);
        if format == RingFormat::Packed {
            let ring = PackedRing::at(&bench.view, &bench.device, SIZE).unwrap();
            let place = |n| Position::from_bits(n | AT_START, SIZE);
            assert!((0..SIZE).all(|n| !ring.is_available(place(n))));
        }
        assert_eq!(bench.mirror.has_more(&bench.view), [true, false]);
        assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
        bench.serve(format);
        bench.mirror.pass_used(&bench.view, &bench.kept);
        for _ in 0..SIZE {
            assert!(bench.driver.poll_used().unwrap().is_some());
        }
    }
}

/// A driver must not do so. The device may use it as often as it came.
#[test]
fn a_chain_that_comes_twice_is_the_later_one() {
    let mut bench = Bench::new(RingFormat::Split, 0);
    let buffers = Buffers::place(&bench.memory, &[], 8).unwrap();
    bench.driver.add(buffers.chain()).unwrap();
    assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
    bench.driver.stage_head(0).unwrap();
    bench.driver.publish().unwrap();
    assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
    bench.serve_split();
    bench.mirror.pass_used(&bench.view, &bench.kept);
    let items = bench.kept.items.take();
    let used = items.iter().filter_map(|item| match item {
        Item::Used(used) => Some(used.number),
        _ => None,
    });
    assert!(used.eq([2]));
}

/// Rounds of chains of one and two descriptors, so that they wrap at each place.
fn goes_round(format: RingFormat, features: u64) {
    let mut bench = Bench::new(format, features);
    for round in 0..20u8 {
        let one = Buffers::place(&bench.memory, &[], 8).unwrap();
        let two = Buffers::place(&bench.memory, &[round; 5], 8).unwrap();
        for buffers in [&one, &two] {
            bench.driver.add(buffers.chain()).unwrap();
        }
        assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
        assert!(!bench.mirror.pass_available(&bench.view, &bench.kept));
        assert_eq!(bench.mirror.has_more(&bench.view), [false, false]);
        assert_eq!(bench.driver.poll_used().unwrap(), None);
        bench.serve(format);
        bench.served += 2;
        assert_eq!(bench.mirror.has_more(&bench.view), [false, true]);
        // Nothing comes to the driver but by the mirror.
        assert_eq!(bench.driver.poll_used().unwrap(), None);
        bench.driver.set_notify(true).unwrap();
        assert!(bench.mirror.pass_used(&bench.view, &bench.kept));
        assert!(!bench.mirror.pass_used(&bench.view, &bench.kept));
        for _ in 0..2 {
            let used = bench.driver.poll_used().unwrap().unwrap();
            assert_eq!(used.len, Some(1));
        }
    }
    let items = bench.kept.items.take();
    let submits = items.iter().filter(|item| matches!(item, Item::Submit(_)));
    assert_eq!(submits.count(), usize::from(bench.served));
    let used = items.iter().filter_map(|item| match item {
        Item::Used(used) => Some(used.number),
        _ => None,
    });
    assert!(used.eq(1..=u64::from(bench.served)));
    let readable = items.iter().filter_map(|item| match item {
        Item::Submit(submit) if !submit.readable.is_empty() => Some(submit.readable.clone()),
        _ => None,
    });
    assert!(readable.eq((0..20).map(|round| vec![round; 5])));
}

#[test]
fn a_split_ring_goes_round() {
    goes_round(RingFormat::Split, 0);
    goes_round(RingFormat::Split, EVENT_IDX);
}

#[test]
fn a_packed_ring_goes_round() {
    goes_round(RingFormat::Packed, RING_PACKED);
    goes_round(RingFormat::Packed, RING_PACKED | EVENT_IDX);
}

#[test]
fn a_driver_that_wants_no_calls_gets_none() {
    let mut bench = Bench::new(RingFormat::Split, 0);
    bench.driver.set_notify(false).unwrap();
    let buffers = Buffers::place(&bench.memory, &[], 8).unwrap();
    bench.driver.add(buffers.chain()).unwrap();
    assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
    bench.serve_split();
    assert!(!bench.mirror.pass_used(&bench.view, &bench.kept));
    assert!(bench.driver.poll_used().unwrap().is_some());
}

#[test]
fn a_chain_that_is_a_loop_is_noted() {
    let mut bench = Bench::new(RingFormat::Split, 0);
    let looped = driver::Descriptor::split(0x1000, 1, driver::VIRTQ_NEXT, 0);
    bench.driver.put_raw(0, looped).unwrap();
    bench.driver.stage_head(0).unwrap();
    bench.driver.publish().unwrap();
    assert!(bench.mirror.pass_available(&bench.view, &bench.kept));
    let items = bench.kept.items.take();
    let [Item::Submit(submit)] = &items[..] else {
        panic!("{items:?}");
    };
    assert_eq!(
        submit.trouble.as_deref(),
        Some("its descriptors are a loop")
    );
}
