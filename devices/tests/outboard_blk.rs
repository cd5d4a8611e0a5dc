//! The frontend on this project's block backend, which is killed under it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use devices::vhost_user::{Frontend, Options};
use devices::virtio::DeviceType;
use devices::virtio::spec::Register;
use devices::virtio::status::Status;
use support::blk::{self, SECTOR};
use support::packed::Packed;
use support::{Machine, Ring};

/// All but VIRTIO_F_EVENT_IDX and VIRTIO_F_RING_PACKED, which most of the test's driver does not
/// do.
const FEATURES: u64 = !(1 << 29 | PACKED);
const PACKED: u64 = 1 << 34;

/// A backend on a fresh disk; it ends with the value.
struct Backend {
    process: Child,
    dir: tempfile::TempDir,
}

impl Backend {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("disk.img"), vec![0; 1 << 20]).unwrap();
        let process = spawn(dir.path());
        Self { process, dir }
    }

    fn connect(&self) -> Machine {
        let memory = support::shared_memory();
        let options = Options {
            connect_deadline: Duration::from_secs(20),
            deadline: Duration::from_secs(20),
            ..Options::new("disk", DeviceType::BLK, self.dir.path().join("blk.sock"))
        };
        let frontend = Frontend::connect(options, memory.clone()).unwrap();
        Machine::new(frontend, memory)
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    let mut command = Command::new(program());
    command.arg("--socket").arg(dir.join("blk.sock"));
    command.arg("--path").arg(dir.join("disk.img"));
    command.spawn().unwrap()
}

/// The backend of the same build: target/PROFILE/deps/TEST is this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("outboard-blk");
    assert!(program.exists(), "run `cargo build --workspace` first");
    program
}

#[test]
fn a_killed_backend_that_comes_back_goes_on() {
    let mut backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    for round in 1..=5u8 {
        blk::write(&mut machine, ring, round.into(), &[round; SECTOR]);
        backend.kill();
        machine.notice_loss();
        blk::begin_flush(&mut machine, ring);
        backend.process = spawn(backend.dir.path());
        machine.handle_until_complete(ring);
        assert!(!machine.has_status(Status::NEEDS_RESET));
        for past in 1..=round {
            let read = blk::read(&mut machine, ring, past.into(), SECTOR);
            assert_eq!(read, [past; SECTOR]);
        }
    }
}

#[test]
fn pages_that_the_backend_writes_are_told_also_of_its_successor() {
    let mut backend = Backend::start();
    let mut machine = backend.connect();
    // Before there is a driver: what it sets up is logged from the start.
    assert_eq!(machine.backend.dirty_pages(), None);
    machine.set_dirty_log(true).unwrap();
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    let (used, page) = (ring.used(), blk::written(0).start);
    blk::flush(&mut machine, ring);
    let status = blk::written(0);
    let used = used..used + 0x1000;
    assert_eq!(
        machine.backend.dirty_pages(),
        Some(vec![used.clone(), status.clone()])
    );
    blk::read(&mut machine, ring, 0, 3 * SECTOR);
    let read = vec![used.clone(), page..blk::written(3 * SECTOR).end];
    assert_eq!(machine.backend.dirty_pages(), Some(read.clone()));
    assert_eq!(machine.backend.dirty_pages(), Some(vec![]));

    backend.kill();
    machine.notice_loss();
    blk::begin_flush(&mut machine, ring);
    backend.process = spawn(backend.dir.path());
    machine.handle_until_complete(ring);
    blk::read(&mut machine, ring, 0, 3 * SECTOR);
    assert_eq!(machine.backend.dirty_pages(), Some(read));

    machine.set_dirty_log(false).unwrap();
    blk::flush(&mut machine, ring);
    assert_eq!(machine.backend.dirty_pages(), None);
    // Again, under a running ring.
    machine.set_dirty_log(true).unwrap();
    blk::flush(&mut machine, ring);
    assert_eq!(machine.backend.dirty_pages(), Some(vec![used, status]));
}

/// Requests that the backend may or may not have taken, at the instant it is
/// killed: each is served by the next one.
#[test]
fn requests_in_flight_when_the_backend_is_killed_are_done_by_the_next_one() {
    let mut backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    for round in 1..=6u8 {
        blk::begin_write(&mut machine, ring, 7, &[round; 8 * SECTOR]);
        backend.kill();
        machine.notice_loss();
        backend.process = spawn(backend.dir.path());
        machine.handle_until("the backend is back", |machine| {
            machine.call(0).read().is_ok() || machine.has_status(Status::NEEDS_RESET)
        });
        assert!(!machine.has_status(Status::NEEDS_RESET));
        machine.complete(ring);
        let read = blk::read(&mut machine, ring, 7, 8 * SECTOR);
        assert_eq!(read, [round; 8 * SECTOR]);
    }
}

/// Resets the first queue while nobody serves it.
fn lose_and_reset(machine: &mut Machine, backend: &mut Backend) {
    backend.kill();
    machine.notice_loss();
    machine.write(Register::QueueSel, 0);
    machine.write(Register::QueueReset, 1);
}

fn start_the_next(machine: &mut Machine, backend: &mut Backend) {
    backend.process = spawn(backend.dir.path());
    machine.handle_until("the backend is back", |machine| {
        machine.call(0).read().is_ok() || machine.has_status(Status::NEEDS_RESET)
    });
    assert!(!machine.has_status(Status::NEEDS_RESET));
}

/// The record of requests in flight is of the queue that was, and ends with it.
#[test]
fn a_queue_that_is_reset_while_no_backend_is_there_begins_with_the_next_one() {
    let mut backend = Backend::start();
    let mut machine = backend.connect();
    let mut rings = [Ring::new(0, 0x4000)];
    machine.bring_up(FEATURES, &mut rings);
    let [ring] = &mut rings;
    for round in 1..=3u8 {
        for sector in 0..5 {
            blk::write(&mut machine, ring, sector, &[round; SECTOR]);
        }
        blk::begin_write(&mut machine, ring, 5, &[round; 8 * SECTOR]);
        lose_and_reset(&mut machine, &mut backend);
        machine.set_up(ring);
        start_the_next(&mut machine, &mut backend);
        let read = blk::read(&mut machine, ring, 4, SECTOR);
        assert_eq!(read, [round; SECTOR]);
    }
}

#[test]
fn a_packed_queue_that_is_reset_while_no_backend_is_there_begins_with_the_next_one() {
    let mut backend = Backend::start();
    let mut machine = backend.connect();
    machine.negotiate(FEATURES | PACKED);
    let mut ring = Ring::new(0, 0x4000);
    machine.set_up(&mut ring);
    machine.driver_ok();
    for _ in 0..3 {
        let mut packed = Packed::new(&ring);
        for _ in 0..5 {
            let request = blk::flush_request(&machine);
            packed.add(&machine.memory, &request);
            machine.write(Register::QueueNotify, 0);
            let call = machine.call(0);
            while !packed.is_used(&machine.memory) {
                assert!(support::wait(&call), "no request is completed");
                let _ = call.read();
            }
        }
        lose_and_reset(&mut machine, &mut backend);
        machine.set_up(&mut ring);
        start_the_next(&mut machine, &mut backend);
    }
}
