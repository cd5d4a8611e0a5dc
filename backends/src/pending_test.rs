use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vhost_user_backend::VringT;
use virtio_bindings::virtio_ring::VRING_DESC_F_WRITE;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::*;
use crate::drain::SharedPump;
use crate::inflight::{self, Region, Shape};
use crate::packed::{Layout, OWNER, PackedRing, Position};
use crate::page_log::{GuestRam, PageLog};
use crate::progress::{Progress, Record};
use crate::pump::{Pump, Serve};
use crate::request::Outcome;
use crate::testing::{DEADLINE, enabled_ring};
use crate::vring::Vring;

type Memory = crate::memory::SharedMemory<PageLog>;

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const DATA: u64 = 0x4000;
const SIZE: u16 = 16;
const LAYOUT: Layout = Layout {
    size: SIZE,
    descriptors: GuestAddress(0),
    driver_events: GuestAddress(AVAIL),
    device_events: GuestAddress(USED),
    event_idx: false,
};

/// What a ring may be.
#[derive(Clone, Copy, Debug)]
struct Kind {
    packed: bool,
    tracked: bool,
}

fn kinds() -> impl Iterator<Item = Kind> {
    [false, true]
        .into_iter()
        .flat_map(|packed| [false, true].map(|tracked| Kind { packed, tracked }))
}

/// A ring with chains of one writable byte each, from the driver's side too.
struct Bench {
    kind: Kind,
    memory: Memory,
    vring: Vring,
    pump: Pump,
    record: Record,
    region: Arc<Region>,
    added: u16,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let (memory, vring) = enabled_ring(SIZE, AVAIL, USED);
        let shape = Shape::new(1, SIZE, 1, kind.packed).unwrap();
        let (place, file) = inflight::create(shape).unwrap();
        let region = Region::map(&place, file, 1, kind.packed).unwrap();
        let record = Record::default();
        let mut pump = Pump::new().unwrap();
        pump.set_memory(&memory);
        pump.set_record(record.clone());
        let region = Arc::new(region);
        let bench = Bench {
            kind,
            memory,
            vring,
            pump,
            record,
            region,
            added: 0,
        };
        *bench.record.lock() = bench.progress();
        bench
    }

    fn progress(&self) -> Progress {
        let tracked = self.kind.tracked;
        if self.kind.packed {
            let start = u32::from(Position::START.bits());
            let mut ring = PackedRing::new(LAYOUT, start | start << 16).unwrap();
            if tracked {
                ring.resume(self.recover_packed()).unwrap();
            }
            return Progress::Packed(ring);
        }
        let tracker = inflight::Tracker::recover(&self.region, 0, SIZE, 0);
        Progress::Split(tracked.then(|| tracker.unwrap().0))
    }

    fn recover_packed(&self) -> inflight::packed::Recovered {
        let flags = |slot: u16| -> Result<u16, ()> { Ok(self.get(16 * u64::from(slot) + 14)) };
        let start = Position::START;
        inflight::packed::Tracker::recover(&self.region, 0, SIZE, start, flags)
            .unwrap()
            .unwrap()
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        let memory = self.memory.memory();
        memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    fn get<T: vm_memory::ByteValued>(&self, at: u64) -> T {
        self.memory.memory().read_obj(GuestAddress(at)).unwrap()
    }

    /// The driver makes one more chain available, whose id is its number.
    fn add(&mut self) {
        let id = self.added;
        let at = 16 * u64::from(id);
        self.added += 1;
        self.put(at, DATA + u64::from(id));
        self.put(at + 8, 1u32);
        let write = VRING_DESC_F_WRITE as u16;
        if self.kind.packed {
            self.put(at + 12, id);
            self.put(at + 14, write | Position::START.available());
        } else {
            self.put(at + 12, write);
            self.put(AVAIL + 4 + 2 * u64::from(id), id);
            self.put(AVAIL + 2, self.added);
        }
    }

    /// The chains that the driver has back, and what was written into them.
    fn used(&self) -> Vec<(u16, u32)> {
        if self.kind.packed {
            let slots = (0..u64::from(SIZE)).map(|slot| 16 * slot);
            let used = slots.take_while(|at| self.get::<u16>(at + 14) & OWNER == OWNER);
            return used
                .map(|at| (self.get(at + 12), self.get(at + 8)))
                .collect();
        }
        let count = u64::from(self.get::<u16>(USED + 2));
        let elements = (0..count).map(|slot| USED + 4 + 8 * slot);
        let read = elements.map(|at| (self.get::<u32>(at) as u16, self.get(at + 4)));
        read.collect()
    }

    /// How many chains a successor would find in flight.
    fn in_flight(&self) -> usize {
        if self.kind.packed {
            return self.recover_packed().left.len();
        }
        let used = self.get(USED + 2);
        let tracker = inflight::Tracker::recover(&self.region, 0, SIZE, used);
        tracker.unwrap().0.left_count().into()
    }

    fn is_tracked(&self, expected: usize) -> bool {
        !self.kind.tracked || self.in_flight() == expected
    }

    /// How many chains have been taken and are not to be taken again.
    fn base(&self) -> u16 {
        match &*self.record.lock() {
            Progress::Packed(ring) => ring.base() as u16 & 0x7fff,
            Progress::Split(_) => self.vring.queue_next_avail(),
        }
    }

    fn run(&mut self, device: &mut Late, finish: usize) {
        device.finish = finish;
        self.pump.run(&self.vring, &mut *device).unwrap();
    }
}

/// Finishes so many requests in a pass, the newest first.
#[derive(Default)]
struct Late {
    finish: usize,
    kept: Vec<Request>,
}

impl Serve for &mut Late {
    fn process(&mut self, _: &GuestRam, request: &mut Request) -> Outcome {
        self.kept.push(request.keep());
        Outcome::Pending
    }

    fn poll(&mut self, finished: &mut Finished) {
        for request in (0..self.finish).map_while(|_| self.kept.pop()) {
            finished.push(request, 1);
        }
        self.finish = 0;
    }
}

#[test]
fn requests_are_finished_later_and_in_any_order() {
    for kind in kinds() {
        let (mut bench, mut device) = (Bench::new(kind), Late::default());
        (0..5).for_each(|_| bench.add());
        bench.run(&mut device, 0);
        assert_eq!(bench.pump.pending(), 5, "{kind:?}");
        assert!(bench.used().is_empty() && bench.is_tracked(5), "{kind:?}");
        bench.run(&mut device, 2);
        assert_eq!(bench.used(), [(4, 1), (3, 1)], "{kind:?}");
        assert!(bench.is_tracked(3), "{kind:?}");
        bench.add();
        bench.run(&mut device, 1);
        assert_eq!(bench.used()[2], (5, 1), "{kind:?}");
        bench.run(&mut device, 9);
        let ids: Vec<_> = bench.used().into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [4, 3, 5, 2, 1, 0], "{kind:?}");
        assert_eq!((bench.pump.pending(), bench.base()), (0, 6), "{kind:?}");
        assert!(bench.is_tracked(0), "{kind:?}");
    }
}

#[test]
fn a_ring_that_stops_takes_nothing_and_finishes_what_it_has() {
    for kind in kinds() {
        let (mut bench, mut device) = (Bench::new(kind), Late::default());
        (0..3).for_each(|_| bench.add());
        bench.run(&mut device, 0);
        bench.vring.set_enabled(false);
        bench.vring.set_queue_ready(false);
        bench.add();
        bench.run(&mut device, 1);
        assert_eq!(
            (bench.used().len(), bench.pump.pending()),
            (1, 2),
            "{kind:?}"
        );
        bench.run(&mut device, 9);
        assert_eq!(
            (bench.used().len(), bench.pump.pending()),
            (3, 0),
            "{kind:?}"
        );
        assert_eq!(bench.base(), 3, "{kind:?}");
    }
}

#[test]
fn what_was_given_up_comes_back_to_nobody() {
    for kind in kinds() {
        let (mut bench, mut device) = (Bench::new(kind), Late::default());
        (0..2).for_each(|_| bench.add());
        bench.run(&mut device, 0);
        bench.pump.abandon();
        bench.run(&mut device, 9);
        assert!(bench.used().is_empty() && bench.is_tracked(2), "{kind:?}");
        assert_eq!(bench.pump.pending(), 0, "{kind:?}");
        bench.add();
        bench.run(&mut device, 1);
        assert_eq!(bench.used(), [(2, 1)], "{kind:?}");
    }
}

#[test]
fn a_kept_request_keeps_its_memory_and_its_room_is_used_again() {
    let (mut bench, mut device) = (Bench::new(kinds().next().unwrap()), Late::default());
    bench.add();
    bench.run(&mut device, 0);
    let kept = &device.kept[0];
    kept.chain.writable.write(kept.memory(), 0, &[7]).unwrap();
    assert_eq!(bench.get::<u8>(DATA), 7);
    let mut pending = Pending::default();
    assert!(pending.add().is_none());
    let mut request = Request::new(Arc::default());
    request.set_ticket(pending.ticket(3));
    assert_eq!(
        pending.collect(false, |finished| finished.push(request, 9)),
        [(3, 9)]
    );
    assert!(pending.add().is_some());
}

/// What a device says is believed as far as it has done it.
#[test]
fn a_device_that_contradicts_itself_loses_no_chain() {
    for kind in kinds() {
        let mut bench = Bench::new(kind);
        (0..2).for_each(|_| bench.add());
        let pretends = |_: &GuestRam, _: &mut Request| Outcome::Pending;
        bench.pump.run(&bench.vring, pretends).unwrap();
        assert_eq!(bench.used(), [(0, 0), (1, 0)], "{kind:?}");
        bench.add();
        let mut kept = Vec::new();
        let keeps = |_: &GuestRam, request: &mut Request| {
            kept.push(request.keep());
            Outcome::Done(1)
        };
        bench.pump.run(&bench.vring, keeps).unwrap();
        assert_eq!(
            (bench.used().len(), bench.pump.pending()),
            (2, 1),
            "{kind:?}"
        );
    }
}

#[test]
fn a_drain_ends_with_the_last_request_or_at_its_deadline() {
    let (mut bench, mut device) = (Bench::new(kinds().next().unwrap()), Late::default());
    (0..2).for_each(|_| bench.add());
    bench.run(&mut device, 0);
    let pump = SharedPump::new(std::mem::replace(&mut bench.pump, Pump::new().unwrap()));
    assert!(pump.drain(0, Duration::ZERO).is_err());
    // Those two are given up; the next one is not.
    bench.add();
    pump.run(&bench.vring, &mut device).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            device.finish = 9;
            pump.run(&bench.vring, &mut device).unwrap();
        });
        pump.drain(0, DEADLINE).unwrap();
    });
    assert_eq!(bench.used(), [(2, 1)]);
}
