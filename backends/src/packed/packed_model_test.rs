//! The ring code beside a driver on another processor, in all orders of their accesses.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::area_model::ModelArea;
use crate::look_again::Fence;

const ENTRIES: u16 = 2;
const DISABLE: u16 = VRING_PACKED_EVENT_FLAG_DISABLE as u16;
const ENABLE: u16 = VRING_PACKED_EVENT_FLAG_ENABLE as u16;
const DESC: u16 = VRING_PACKED_EVENT_FLAG_DESC as u16;

/// A ring with these flags in its descriptors, of whose sides none has asked to be woken.
fn areas(flags: u16) -> Arc<Areas<ModelArea>> {
    let descriptor = |index| {
        let at = place(index);
        [
            (at, 0),
            (at + LEN, 0),
            (at + ID, index.into()),
            (at + FLAGS, flags.into()),
        ]
    };
    let events = || ModelArea::new([(EVENT, 0), (EVENT_FLAGS, DISABLE.into())]);
    Arc::new(Areas {
        descriptors: ModelArea::new((0..ENTRIES).flat_map(descriptor)),
        driver: events(),
        device: events(),
    })
}

fn ring(event_idx: bool) -> PackedRing {
    let nowhere = GuestAddress(0);
    let layout = Layout {
        size: ENTRIES,
        descriptors: nowhere,
        driver_events: nowhere,
        device_events: nowhere,
        event_idx,
    };
    PackedRing::new(layout, Position::START.bits().into()).unwrap()
}

/// Asks to hear of the first descriptor.
fn ask(events: &ModelArea, event_idx: bool) {
    if event_idx {
        let first = Position::START.bits();
        events.store(EVENT, first, Ordering::Relaxed).unwrap();
    }
    let flags = if event_idx { DESC } else { ENABLE };
    events.store(EVENT_FLAGS, flags, Ordering::Release).unwrap();
    ModelArea::full();
}

/// Whether the other side asks to.
fn is_asked_for(events: &ModelArea) -> bool {
    ModelArea::full();
    let event = || events.load(EVENT, Ordering::Relaxed).unwrap();
    match events.load(EVENT_FLAGS, Ordering::Acquire).unwrap() {
        DISABLE => false,
        DESC => event() == Position::START.bits(),
        _ => true,
    }
}

/// Writes a descriptor, its flags last.
fn put(ring: &ModelArea, index: u16, descriptor: Descriptor) {
    let at = place(index);
    ring.write(at, descriptor.addr.to_le()).unwrap();
    ring.write(at + LEN, descriptor.len.to_le()).unwrap();
    ring.write(at + ID, descriptor.id.to_le()).unwrap();
    let flags = descriptor.flags | Position::START.available();
    ring.store(at + FLAGS, flags, Ordering::Release).unwrap();
}

const CHAIN: [Descriptor; 2] = [
    Descriptor {
        addr: 0x1000,
        len: 16,
        id: 0,
        flags: NEXT,
    },
    Descriptor {
        addr: 0x2000,
        len: 8,
        id: 5,
        flags: WRITE,
    },
];

/// The device finds the whole chain, or sleeps and is kicked.
fn a_chain_becomes_available(event_idx: bool) {
    let areas = areas(0);
    let driver = {
        let areas = Arc::clone(&areas);
        thread::spawn(move || {
            // The first one says that the others are there (section 2.8.6).
            put(&areas.descriptors, 1, CHAIN[1]);
            put(&areas.descriptors, 0, CHAIN[0]);
            is_asked_for(&areas.device)
        })
    };
    let mut ring = ring(event_idx);
    let is_taken = loop {
        let is_taken = ring.take_slots(&areas).unwrap().is_some();
        if is_taken || ring.is_exhausted(&areas).unwrap() {
            break is_taken;
        }
    };
    let is_kicked = driver.join().unwrap();
    assert!(is_taken || is_kicked, "the device sleeps for ever");
    let taken = ring.scratch.slots.iter().zip(CHAIN);
    for (taken, put) in taken {
        let flags = put.flags | Position::START.available();
        assert_eq!(*taken, Descriptor { flags, ..put });
    }
}

/// The driver finds both chains, or sleeps and is interrupted.
fn two_chains_are_used(event_idx: bool) {
    let areas = areas(Position::START.available());
    let mut ring = ring(event_idx);
    let mut take = || ring.take_slots(&areas).unwrap().unwrap();
    let chains = [(take(), 8), (take(), 9)];
    let driver = {
        let areas = Arc::clone(&areas);
        thread::spawn(move || {
            ask(&areas.driver, event_idx);
            let ring = &areas.descriptors;
            let first = read(ring, 0).unwrap();
            let is_used = first.flags & OWNER == Position::START.used();
            is_used.then(|| [first, read(ring, 1).unwrap()])
        })
    };
    ring.complete(&areas, &chains).unwrap();
    let is_interrupted = ring.driver_wants_notification(&areas).unwrap();
    match driver.join().unwrap() {
        Some(used) => {
            assert_eq!(used.map(|used| used.len), [8, 9]);
            assert_eq!(used[1].flags & OWNER, Position::START.used());
        }
        None => assert!(is_interrupted, "the driver sleeps for ever"),
    }
}

#[test]
fn no_available_chain_is_left_to_a_device_that_sleeps() {
    for event_idx in [false, true] {
        loom::model(move || a_chain_becomes_available(event_idx));
    }
}

#[test]
fn no_used_chain_is_left_to_a_driver_that_sleeps() {
    for event_idx in [false, true] {
        loom::model(move || two_chains_are_used(event_idx));
    }
}
