//! The ring code beside a driver on another processor, in all orders of their accesses.

use loom::sync::Arc;
use loom::thread;

use super::*;
use crate::area_model::ModelArea;
use crate::look_again::Fence;

const SIZE: u16 = 2;
/// The two bytes of EVENT_IDX behind the elements of either ring.
const USED_EVENT: usize = ELEMENTS + AVAILABLE * SIZE as usize;
const AVAIL_EVENT: usize = ELEMENTS + USED * SIZE as usize;

/// A ring in which nothing is available or used, and nobody has asked to be woken.
fn areas() -> Arc<Areas<ModelArea>> {
    let (unasked, far) = (1, u16::MAX.into());
    let slots = 0..usize::from(SIZE);
    let available = slots.clone().map(|slot| (ELEMENTS + AVAILABLE * slot, 0));
    let used = slots.map(|slot| (ELEMENTS + USED * slot, 0));
    let driver = [(FLAGS, unasked), (INDEX, 0), (USED_EVENT, far)];
    let device = [(FLAGS, unasked), (INDEX, 0), (AVAIL_EVENT, far)];
    Arc::new(Areas {
        descriptors: ModelArea::new([]),
        driver: ModelArea::new(driver.into_iter().chain(available)),
        device: ModelArea::new(device.into_iter().chain(used)),
    })
}

fn queue(event_idx: bool) -> Queue {
    let mut queue = Queue::new(SIZE).unwrap();
    queue.set_event_idx(event_idx);
    queue
}

/// Whether the side that writes `area` asks to hear of the first chain.
fn is_asked_for(area: &ModelArea, event_idx: bool, event: usize) -> bool {
    ModelArea::full();
    match event_idx {
        true => area.load(event, Ordering::Relaxed).unwrap() == 0,
        false => area.load(FLAGS, Ordering::Relaxed).unwrap() == 0,
    }
}

/// The device finds the chain, or sleeps and is kicked.
fn a_chain_becomes_available(event_idx: bool) {
    let areas = areas();
    let driver = {
        let areas = Arc::clone(&areas);
        thread::spawn(move || {
            let ring = &areas.driver;
            ring.store(ELEMENTS, 7, Ordering::Relaxed).unwrap();
            ring.store(INDEX, 1, Ordering::Release).unwrap();
            is_asked_for(&areas.device, event_idx, AVAIL_EVENT)
        })
    };
    let queue = queue(event_idx);
    let mut ring = SplitRing::new(&areas, &queue);
    let taken = loop {
        let taken = ring.take().unwrap();
        if taken.is_some() || ring.is_exhausted().unwrap() {
            break taken;
        }
    };
    let is_kicked = driver.join().unwrap();
    match taken {
        Some(head) => assert_eq!(head, 7, "the element is there before the index"),
        None => assert!(is_kicked, "the device sleeps for ever"),
    }
}

/// The driver finds the used chain, or sleeps and is interrupted.
fn a_chain_is_used(event_idx: bool) {
    let areas = areas();
    let driver = {
        let areas = Arc::clone(&areas);
        thread::spawn(move || {
            let wish = if event_idx { USED_EVENT } else { FLAGS };
            areas.driver.store(wish, 0, Ordering::Relaxed).unwrap();
            ModelArea::full();
            let index = areas.device.load(INDEX, Ordering::Acquire).unwrap();
            (index == 1).then(|| areas.device.read::<u64>(ELEMENTS).unwrap())
        })
    };
    let queue = queue(event_idx);
    let mut ring = SplitRing::new(&areas, &queue);
    ring.write_used(&[(3, 9)]).unwrap();
    ring.publish().unwrap();
    let is_interrupted = ring.driver_wants_notification().unwrap();
    match driver.join().unwrap() {
        Some(element) => assert_eq!(u64::from_le(element), 3 | 9 << 32),
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
        loom::model(move || a_chain_is_used(event_idx));
    }
}
