use std::sync::Arc;

use proptest::prelude::*;
use vm_memory::Bytes;

use super::*;

const SIZE: u16 = 8;
const DRIVER: u64 = 0x1000;
const DEVICE: u64 = 0x2000;

/// Guest memory with a ring in it.
struct Guest {
    ram: Arc<GuestRam>,
    areas: Areas<RamArea>,
}

fn memory() -> Guest {
    let ram = Arc::new(GuestRam::from_ranges(&[(GuestAddress(0), 0x4000)]).unwrap());
    let place = Place {
        available: 0,
        used: 0,
    };
    let areas = Areas::find(&ram, spans(&queue(place, false))).unwrap();
    Guest { ram, areas }
}

fn queue(place: Place, event_idx: bool) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue
        .try_set_avail_ring_address(GuestAddress(DRIVER))
        .unwrap();
    queue
        .try_set_used_ring_address(GuestAddress(DEVICE))
        .unwrap();
    queue.set_event_idx(event_idx);
    queue.set_next_avail(place.available);
    queue.set_next_used(place.used);
    queue
}

fn ring(memory: &Guest, at: u16, event_idx: bool) -> SplitRing<'_> {
    let place = Place {
        available: at,
        used: at,
    };
    SplitRing::new(&memory.areas, &queue(place, event_idx))
}

fn put(memory: &Guest, at: u64, value: u16) {
    memory.ram.write_obj(value, GuestAddress(at)).unwrap();
}

fn get(memory: &Guest, at: u64) -> u16 {
    memory.ram.read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn chains_are_taken_in_order_around_the_end_of_the_ring_and_of_its_index() {
    let memory = memory();
    let start = u16::MAX - 2;
    for i in 0..5 {
        let slot = start.wrapping_add(i) % SIZE;
        put(&memory, DRIVER + 4 + 2 * u64::from(slot), i);
    }
    put(&memory, DRIVER + 2, start.wrapping_add(5));
    let mut ring = ring(&memory, start, false);
    for expected in [0, 1] {
        assert_eq!(ring.take().unwrap(), Some(expected));
    }
    ring.put_back();
    for expected in [1, 2, 3, 4] {
        assert_eq!(ring.take().unwrap(), Some(expected));
    }
    assert_eq!(ring.take().unwrap(), None);
    assert!(ring.is_exhausted().unwrap());
}

#[test]
fn used_elements_are_seen_when_they_are_published() {
    let memory = memory();
    let mut ring = ring(&memory, SIZE - 1, false);
    ring.write_used(&[(3, 0x11), (5, 0x22)]).unwrap();
    assert_eq!(get(&memory, DEVICE + 2), 0);
    ring.publish().unwrap();
    assert_eq!(get(&memory, DEVICE + 2), SIZE + 1);
    let element = |slot: u64| {
        memory
            .ram
            .read_obj::<[u32; 2]>(GuestAddress(DEVICE + 4 + 8 * slot))
    };
    assert_eq!(element(7).unwrap(), [3, 0x11]);
    assert_eq!(element(0).unwrap(), [5, 0x22]);
}

#[test]
fn an_index_that_is_too_far_ahead_is_an_error_each_time() {
    let memory = memory();
    let mut ring = ring(&memory, 0, false);
    put(&memory, DRIVER + 2, SIZE + 1);
    for _ in 0..2 {
        let error = ring.take().unwrap_err().to_string();
        assert!(error.contains("available index is 9"), "{error}");
    }
    put(&memory, DRIVER + 2, 1);
    assert_eq!(ring.take().unwrap(), Some(0));
}

#[test]
fn the_driver_is_asked_for_kicks_only_while_nothing_is_there() {
    for event_idx in [false, true] {
        let memory = memory();
        let mut ring = ring(&memory, 7, event_idx);
        put(&memory, DRIVER + 2, 7);
        ring.disable_notification().unwrap();
        assert_eq!(get(&memory, DEVICE), u16::from(!event_idx));
        assert!(ring.is_exhausted().unwrap());
        let event = get(&memory, DEVICE + 4 + 8 * u64::from(SIZE));
        assert_eq!(event, if event_idx { 7 } else { 0 });
        assert_eq!(get(&memory, DEVICE), 0);
        put(&memory, DRIVER + 2, 8);
        assert!(!ring.is_exhausted().unwrap());
        assert_eq!(get(&memory, DEVICE), u16::from(!event_idx));
    }
}

proptest! {
    /// Section 2.7.10 in words: the driver is told once the element at `event` has been used, and
    /// not again before it asks again.
    #[test]
    fn the_driver_is_notified_exactly_when_its_event_is_passed(
        start in any::<u16>(),
        batches in prop::collection::vec(0..=SIZE, 1..20),
        ahead in 0..3 * SIZE,
    ) {
        let memory = memory();
        let event = start.wrapping_add(ahead);
        put(&memory, DRIVER + 4 + 2 * u64::from(SIZE), event);
        let mut ring = ring(&memory, start, true);
        let mut used = 0;
        for batch in batches {
            let chains: Vec<_> = (0..batch).map(|i| (i % SIZE, 0)).collect();
            ring.write_used(&chains).unwrap();
            ring.publish().unwrap();
            // The element at `event` is number `ahead` from the start.
            let passes = (used..used + batch).contains(&ahead);
            prop_assert_eq!(ring.driver_wants_notification().unwrap(), passes);
            used += batch;
        }
    }

    #[test]
    fn without_event_idx_the_flag_decides(flags in any::<u16>()) {
        let memory = memory();
        put(&memory, DRIVER, flags);
        let mut ring = ring(&memory, 0, false);
        prop_assert_eq!(ring.driver_wants_notification().unwrap(), flags & 1 == 0);
    }
}
