use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::super::chain::{Descriptor, NEXT};
use super::super::place::DevicePlaces;
use super::*;
use crate::driver::{self, Buffers, Format as RingFormat, Layout, QueueFeatures, USER_BASE};
use crate::interpose::{Access, Place};

const SIZE: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

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
    /// Of the device, in descriptors or entries since the begin.
    place: usize,
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
            place: 0,
            served: 0,
        }
    }

    fn area(&self, address: u64, len: usize) -> Area<'_> {
        Area::at(&self.view, address, len).unwrap()
    }

    /// Uses what a split ring has.
    fn serve_split(&mut self) {
        let [available, used] = split::Copy::sizes(SIZE);
        let available = self.area(self.device.driver, available);
        let used = self.area(self.device.device, used);
        let mut place = self.place;
        while place as u16 != available.load(2) {
            let slot = place % usize::from(SIZE);
            let head = available.load(4 + 2 * slot);
            let element = [u32::from(head).to_le_bytes(), 1u32.to_le_bytes()].concat();
            used.put(4 + 8 * slot, &element);
            place += 1;
            used.store(2, place as u16);
        }
        self.place = place;
    }

    /// Uses what a packed ring has.
    fn serve_packed(&mut self) {
        let ring = self.area(self.device.descriptors, 16 * usize::from(SIZE));
        let mut place = self.place;
        let get = |place: usize| {
            let at = 16 * (place % usize::from(SIZE));
            (at, Descriptor::packed(ring.get(at)))
        };
        loop {
            let wrap = (place / usize::from(SIZE)).is_multiple_of(2);
            let (at, first) = get(place);
            let mine = if wrap { AVAIL } else { USED };
            if first.flags & (AVAIL | USED) != mine {
                break;
            }
            let mut last = first;
            place += 1;
            while last.flags & NEXT != 0 {
                last = get(place).1;
                place += 1;
            }
            ring.put(at + 8, &1u32.to_le_bytes());
            ring.put(at + 12, &last.number.to_le_bytes());
            let bits = if wrap { AVAIL | USED } else { 0 };
            ring.store(at + 14, bits | chain::WRITE);
        }
        self.place = place;
    }
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
        match format {
            RingFormat::Split => bench.serve_split(),
            RingFormat::Packed => bench.serve_packed(),
        }
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
