//! A device that finishes requests later, behind a real socket: whatever stops its ring waits for
//! them.

mod common;

use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use backends::page_log::GuestRam;
use backends::request::{Finished, Outcome, Request};
use backends::virtio::VirtioDevice;
use common::{BUFFERS, DEADLINE, Driver, QUEUE_SIZE, Server, w};
use vhost::vhost_user::message::VhostUserInflight;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::EventFd;

/// What a request gets.
const WRITTEN: u32 = 3;
/// How long something that must not happen is waited for.
const MEANWHILE: Duration = Duration::from_millis(50);

/// Keeps every request until it is told to finish all, the newest first.
struct Held {
    kept: Mutex<Vec<Request>>,
    release: EventFd,
    taken: Mutex<Sender<()>>,
}

#[derive(Clone)]
struct Handle(Arc<Held>);

impl VirtioDevice for Handle {
    fn resumable(&self) -> bool {
        true
    }

    fn events(&self, _queue: u16) -> Vec<RawFd> {
        vec![self.0.release.as_raw_fd()]
    }

    fn process(&self, _queue: u16, _memory: &GuestRam, request: &mut Request) -> Outcome {
        self.0.kept.lock().unwrap().push(request.keep());
        self.0.taken.lock().unwrap().send(()).unwrap();
        Outcome::Pending
    }

    fn poll(&self, _queue: u16, finished: &mut Finished) {
        if self.0.release.read().is_ok() {
            for request in self.0.kept.lock().unwrap().drain(..).rev() {
                finished.push(request, WRITTEN);
            }
        }
    }
}

fn serve() -> (Server, Handle, Receiver<()>) {
    let (taken, takes) = channel();
    let handle = Handle(Arc::new(Held {
        kept: Mutex::default(),
        release: EventFd::new(libc::EFD_NONBLOCK).unwrap(),
        taken: Mutex::new(taken),
    }));
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_device(dir, handle.clone());
    (server, handle, takes)
}

/// Adds chains until the device has `count` more.
fn fill(driver: &mut Driver, takes: &Receiver<()>, count: u64) -> Vec<u16> {
    let ring = &mut driver.rings[0];
    let heads = (0..count).map(|i| ring.add(&driver.memory, &[w(BUFFERS + 0x1000 * i, 8)]));
    let heads = heads.collect();
    ring.kick();
    (0..count).for_each(|_| takes.recv_timeout(DEADLINE).unwrap());
    heads
}

/// All that the driver has got back.
fn used(driver: &mut Driver) -> Vec<(u16, u32)> {
    let ring = &mut driver.rings[0];
    std::iter::from_fn(|| ring.poll_used(&driver.memory)).collect()
}

/// Whatever `stop` asks of the backend is answered when nothing is pending, and not before.
fn waits<R: Send>(
    driver: &mut Driver,
    handle: &Handle,
    stop: impl FnOnce(&mut Frontend) -> R + Send,
) -> R {
    let mut frontend = driver.frontend.clone();
    let (answer, answers) = channel();
    thread::scope(|scope| {
        scope.spawn(move || answer.send(stop(&mut frontend)).unwrap());
        let early = answers.recv_timeout(MEANWHILE);
        assert!(matches!(early, Err(RecvTimeoutError::Timeout)));
        assert_eq!(used(driver), []);
        handle.0.release.write(1).unwrap();
        answers.recv_timeout(DEADLINE).unwrap()
    })
}

fn newest_first(heads: &[u16]) -> Vec<(u16, u32)> {
    heads.iter().rev().map(|head| (*head, WRITTEN)).collect()
}

#[test]
fn a_ring_that_is_stopped_has_finished_what_it_had() {
    let (server, handle, takes) = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    let want = VhostUserInflight::new(0, 0, 1, QUEUE_SIZE);
    let (place, file) = driver.frontend.get_inflight_fd(&want).unwrap();
    let set = driver.frontend.set_inflight_fd(&place, file.as_raw_fd());
    set.unwrap();
    driver.start();
    let heads = fill(&mut driver, &takes, 3);
    let disable = |frontend: &mut Frontend| frontend.set_vring_enable(0, false).unwrap();
    waits(&mut driver, &handle, disable);
    assert_eq!(used(&mut driver), newest_first(&heads));
    driver.frontend.set_vring_enable(0, true).unwrap();

    let heads = fill(&mut driver, &takes, 2);
    let region = driver.memory.iter().next().unwrap();
    let info = VhostUserMemoryRegionInfo::from_guest_region(region).unwrap();
    let replace = move |frontend: &mut Frontend| frontend.set_mem_table(&[info]).unwrap();
    waits(&mut driver, &handle, replace);
    assert_eq!(used(&mut driver), newest_first(&heads));

    let heads = fill(&mut driver, &takes, 4);
    let base = waits(&mut driver, &handle, |frontend| {
        frontend.get_vring_base(0).unwrap()
    });
    assert_eq!(used(&mut driver), newest_first(&heads));
    assert_eq!(base, 9);
    // The successor finds nothing in flight, and the next chain is the driver's next.
    driver.set_up_ring(0, 9);
    let heads = fill(&mut driver, &takes, 1);
    handle.0.release.write(1).unwrap();
    assert_eq!(
        driver.rings[0].wait_used(&driver.memory),
        (heads[0], WRITTEN)
    );
}

#[test]
fn a_device_that_is_reset_has_finished_what_it_had() {
    let (server, handle, takes) = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    let heads = fill(&mut driver, &takes, 3);
    let reset = |frontend: &mut Frontend| frontend.reset_device().unwrap();
    waits(&mut driver, &handle, reset);
    assert_eq!(used(&mut driver), newest_first(&heads));
}

#[test]
fn a_frontend_that_goes_leaves_nothing_for_the_next() {
    let (server, handle, takes) = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    fill(&mut driver, &takes, 3);
    drop(driver);
    handle.0.release.write(1).unwrap();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    let heads = fill(&mut driver, &takes, 1);
    handle.0.release.write(1).unwrap();
    assert_eq!(
        driver.rings[0].wait_used(&driver.memory),
        (heads[0], WRITTEN)
    );
}

/// Finishes its requests when both queues stop.
struct Pair {
    kept: [Mutex<Vec<Request>>; 2],
    events: [EventFd; 2],
    stopping: AtomicUsize,
}

#[derive(Clone)]
struct PairHandle(Arc<Pair>);

impl VirtioDevice for PairHandle {
    fn queues(&self) -> u16 {
        2
    }

    fn events(&self, queue: u16) -> Vec<RawFd> {
        vec![self.0.events[usize::from(queue)].as_raw_fd()]
    }

    fn stopping(&self, _queue: u16) {
        if self.0.stopping.fetch_add(1, Ordering::AcqRel) == 1 {
            for event in &self.0.events {
                event.write(1).unwrap();
            }
        }
    }

    fn process(&self, queue: u16, _memory: &GuestRam, request: &mut Request) -> Outcome {
        let mut kept = self.0.kept[usize::from(queue)].lock().unwrap();
        kept.push(request.keep());
        Outcome::Pending
    }

    fn poll(&self, queue: u16, finished: &mut Finished) {
        if self.0.stopping.load(Ordering::Acquire) == 2 {
            let mut kept = self.0.kept[usize::from(queue)].lock().unwrap();
            kept.drain(..)
                .for_each(|request| finished.push(request, WRITTEN));
        }
    }
}

#[test]
fn all_rings_of_a_device_are_waited_for_at_once() {
    let device = PairHandle(Arc::new(Pair {
        kept: Default::default(),
        events: [(); 2].map(|()| EventFd::new(libc::EFD_NONBLOCK).unwrap()),
        stopping: AtomicUsize::new(0),
    }));
    let server = Server::start_device(tempfile::tempdir().unwrap(), device.clone());
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    let Driver { rings, memory, .. } = &mut driver;
    for ring in rings.iter_mut() {
        ring.add(memory, &[w(BUFFERS, 8)]);
        ring.kick();
    }
    let end = Instant::now() + DEADLINE;
    let is_kept = |kept: &Mutex<Vec<Request>>| !kept.lock().unwrap().is_empty();
    while !device.0.kept.iter().all(is_kept) {
        assert!(Instant::now() < end);
        thread::yield_now();
    }
    driver.frontend.reset_device().unwrap();
    for ring in &mut driver.rings {
        assert_eq!(ring.wait_used(&driver.memory), (0, WRITTEN));
    }
}
