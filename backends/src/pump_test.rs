use std::fs::File;
use std::io::Read;
use std::time::Duration;

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_WRITE};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{enabled_ring, eventfd};
use crate::turn::TURN;

const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;
const SIZE: u16 = 16;

/// A ring with `count` chains of one writable byte each, and a pump for it.
struct Bench {
    memory: SharedMemory<PageLog>,
    vring: Vring,
    pump: Pump,
}

impl Bench {
    fn new(count: u16) -> Self {
        let (memory, vring) = enabled_ring(SIZE, AVAIL, USED);
        let mut pump = Pump::new().unwrap();
        pump.set_memory(&memory);
        let bench = Bench {
            memory,
            vring,
            pump,
        };
        for i in 0..count.min(SIZE) {
            let flags = VRING_DESC_F_WRITE as u16;
            let descriptor = Descriptor::new(0x4000 + u64::from(i), 1, flags, 0);
            bench.put(u64::from(i) * 16, RawDescriptor::from(descriptor));
            bench.put(AVAIL + 4 + 2 * u64::from(i), i);
        }
        bench.put(AVAIL + 2, count);
        bench
    }

    fn put<T: vm_memory::ByteValued>(&self, at: u64, value: T) {
        self.memory
            .memory()
            .write_obj(value, GuestAddress(at))
            .unwrap();
    }

    fn used(&self) -> u16 {
        self.memory
            .memory()
            .read_obj(GuestAddress(USED + 2))
            .unwrap()
    }

    fn asked_to_come_again(&self) -> bool {
        self.pump.again.0.consume().is_ok()
    }
}

#[test]
fn a_ring_is_drained_once() {
    let mut bench = Bench::new(5);
    for expected in [5, 0] {
        let mut served = 0;
        let serve = |_: &GuestRam, request: &mut Request| {
            served += 1;
            Outcome::Done(request.chain.writable.len() as u32)
        };
        bench.pump.run(&bench.vring, serve).unwrap();
        assert_eq!(served, expected);
        assert_eq!(bench.used(), 5);
    }
    assert!(!bench.asked_to_come_again());
}

#[test]
fn a_turn_ends_though_the_ring_does_not() {
    let mut bench = Bench::new(3);
    for expected in [1, 2, 3] {
        // A device that takes longer over one request than a turn may last.
        let serve = |_: &GuestRam, _: &mut Request| {
            std::thread::sleep(TURN + Duration::from_millis(1));
            Outcome::Done(0)
        };
        bench.pump.run(&bench.vring, serve).unwrap();
        assert_eq!(bench.used(), expected);
        assert!(bench.asked_to_come_again());
    }
}

#[test]
fn a_chain_that_waits_stays_available() {
    let mut bench = Bench::new(2);
    for answer in [Outcome::Wait, Outcome::Done(0)] {
        let mut served = 0;
        let serve = |_: &GuestRam, _: &mut Request| {
            served += 1;
            answer
        };
        bench.pump.run(&bench.vring, serve).unwrap();
        assert_eq!(served, if answer == Outcome::Wait { 1 } else { 2 });
    }
    assert_eq!(bench.used(), 2);
}

#[test]
fn an_untouched_chain_is_offered_again() {
    let mut bench = Bench::new(1);
    let mut tries = 0;
    let serve = |_: &GuestRam, _: &mut Request| {
        tries += 1;
        if tries < 4 {
            Outcome::Untouched
        } else {
            Outcome::Done(0)
        }
    };
    bench.pump.run(&bench.vring, serve).unwrap();
    assert_eq!((tries, bench.used()), (4, 1));
}

#[test]
fn good_chains_behind_one_that_the_ring_has_not_got_are_served() {
    let mut bench = Bench::new(4);
    bench.put(AVAIL + 4 + 2, 0xffffu16);
    let mut served = 0;
    let serve = |_: &GuestRam, _: &mut Request| {
        served += 1;
        Outcome::Done(0)
    };
    bench.pump.run(&bench.vring, serve).unwrap();
    assert_eq!((served, bench.used()), (3, 3));
}

#[test]
fn stopped_rings_and_impossible_indices_are_left_alone() {
    let never = |_: &GuestRam, _: &mut Request| -> Outcome { panic!("served") };
    let mut bench = Bench::new(1);
    bench.vring.set_queue_ready(false);
    bench.pump.run(&bench.vring, never).unwrap();
    // More chains than the ring has entries: the driver has lost its mind.
    let mut bench = Bench::new(SIZE + 1);
    assert!(bench.pump.run(&bench.vring, never).is_err());
    assert_eq!(bench.used(), 0);
}

#[test]
fn chains_of_a_disabled_ring_go_back_unserved() {
    let mut bench = Bench::new(3);
    bench.vring.set_enabled(false);
    let never = |_: &GuestRam, _: &mut Request| -> Outcome { panic!("served") };
    bench.pump.run(&bench.vring, never).unwrap();
    assert_eq!(bench.used(), 3);
}

/// Runs one chain through a ring and says how often the driver was notified.
fn notifications(flags: u16, used_event: Option<u16>) -> u64 {
    let mut bench = Bench::new(1);
    let call = eventfd();
    bench.vring.set_call(Some(call.try_clone().unwrap()));
    bench.vring.set_queue_event_idx(used_event.is_some());
    bench.put(AVAIL, flags);
    bench.put(AVAIL + 4 + 2 * u64::from(SIZE), used_event.unwrap_or(0));
    let serve = |_: &GuestRam, _: &mut Request| Outcome::Done(0);
    bench.pump.run(&bench.vring, serve).unwrap();
    // A run without work has nothing to tell.
    bench.pump.run(&bench.vring, serve).unwrap();
    let mut count = [0; 8];
    let read = (&call as &File).read_exact(&mut count);
    read.map_or(0, |()| u64::from_ne_bytes(count))
}

#[test]
fn a_driver_is_notified_when_it_wants_to_be() {
    assert_eq!(notifications(0, None), 1);
    assert_eq!(notifications(VRING_AVAIL_F_NO_INTERRUPT as u16, None), 0);
    assert_eq!(notifications(0, Some(0)), 1);
    assert_eq!(notifications(0, Some(1)), 0);
    // With EVENT_IDX the flag means nothing.
    assert_eq!(notifications(VRING_AVAIL_F_NO_INTERRUPT as u16, Some(0)), 1);
}
