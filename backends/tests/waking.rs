//! What wakes a queue whose device waits: another queue, and each of several descriptors.

mod common;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use backends::prelude::*;
use common::{BUFFERS, DEADLINE, Driver, Server, w};
use vmm_sys_util::eventfd::EventFd;

/// Queue 0 takes a chain only when there is a ticket, and queue 1 makes one of each of its chains.
struct Tickets {
    left: AtomicU32,
    /// How often queue 0 had to wait.
    waits: AtomicU32,
    wakers: OnceLock<Wakers>,
    events: [EventFd; 3],
}

#[derive(Clone)]
struct Handle(Arc<Tickets>);

impl Handle {
    fn new() -> Self {
        Handle(Arc::new(Tickets {
            left: AtomicU32::new(0),
            waits: AtomicU32::new(0),
            wakers: OnceLock::new(),
            events: [(); 3].map(|()| EventFd::new(libc::EFD_NONBLOCK).unwrap()),
        }))
    }

    fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        let (left, order) = (&self.0.left, Ordering::AcqRel);
        left.fetch_update(order, Ordering::Acquire, less).is_ok()
    }

    fn make(&self) {
        self.0.left.fetch_add(1, Ordering::AcqRel);
    }
}

impl VirtioDevice for Handle {
    fn queues(&self) -> u16 {
        2
    }

    fn attached(&self, wakers: Wakers) {
        assert!(self.0.wakers.set(wakers).is_ok());
    }

    fn events(&self, queue: u16) -> Vec<RawFd> {
        let events = self.0.events.iter().map(AsRawFd::as_raw_fd);
        events.filter(|_| queue == 0).collect()
    }

    fn process(&self, queue: u16, _memory: &GuestRam, _request: &mut Request) -> Outcome {
        match queue {
            0 if self.take() => Outcome::Done(1),
            0 => {
                self.0.waits.fetch_add(1, Ordering::AcqRel);
                Outcome::Wait
            }
            _ => {
                self.make();
                let wakers = self.0.wakers.get().unwrap();
                wakers.wake(0);
                // Nobody is there.
                wakers.wake(2);
                Outcome::Done(0)
            }
        }
    }
}

fn start(handle: &Handle) -> (Server, Driver) {
    let server = Server::start_device(tempfile::tempdir().unwrap(), handle.clone());
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    (server, driver)
}

fn add(driver: &mut Driver, queue: usize) {
    let ring = &mut driver.rings[queue];
    ring.add(&driver.memory, &[w(BUFFERS, 8)]);
    ring.kick();
}

/// A chain for queue 0, which waits.
fn add_waiting(driver: &mut Driver, handle: &Handle) {
    let waits = || handle.0.waits.load(Ordering::Acquire);
    let (before, end) = (waits(), Instant::now() + DEADLINE);
    add(driver, 0);
    while waits() == before {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
}

fn expect_used(driver: &mut Driver, queue: usize, len: u32) {
    assert_eq!(driver.rings[queue].wait_used(&driver.memory).1, len);
}

#[test]
fn a_request_of_one_queue_ends_the_wait_of_another() {
    let handle = Handle::new();
    let (_server, mut driver) = start(&handle);
    for _ in 0..100 {
        add_waiting(&mut driver, &handle);
        add(&mut driver, 1);
        expect_used(&mut driver, 1, 0);
        expect_used(&mut driver, 0, 1);
    }
}

#[test]
fn each_of_several_descriptors_ends_the_wait() {
    let handle = Handle::new();
    let (_server, mut driver) = start(&handle);
    for round in 0..30 {
        add_waiting(&mut driver, &handle);
        handle.make();
        handle.0.events[round % 3].write(1).unwrap();
        expect_used(&mut driver, 0, 1);
    }
}

#[test]
fn a_queue_that_does_not_run_is_woken_without_harm() {
    let handle = Handle::new();
    let server = Server::start_device(tempfile::tempdir().unwrap(), handle.clone());
    handle.0.wakers.get().unwrap().wake(0);
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    handle.make();
    driver.start();
    add(&mut driver, 0);
    expect_used(&mut driver, 0, 1);
}
