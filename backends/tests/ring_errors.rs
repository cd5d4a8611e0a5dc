//! Rings that a driver has broken, and what the frontend and the device's other events make of it.

#![allow(unsafe_code)]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::process::Command;

use backends::rng::Rng;
use common::requests::Requests;
use common::{BUFFERS, DEADLINE, Desc, Driver, NEXT, QUEUE_SIZE, Server, readable, w};
use vhost::VhostBackend;
use vhost::vhost_user::message::FrontendReq;
use vhost_user_wire::{Connection, Deadline, Header};
use vm_memory::{Bytes, GuestAddress};

/// `outboard-rng`'s device, with a pipe for its source.
fn serve() -> (Server, File) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    // Held open for reading too: else each writer's end would be the end of the pipe.
    let source = File::options().read(true).write(true).open(&path).unwrap();
    let server = Server::start_device(dir, Rng::open(&path, None).unwrap());
    (server, source)
}

/// Offers the chain at `head`, whatever it is, and waits until it comes back empty.
fn offer(driver: &mut Driver, head: u16) {
    let ring = &mut driver.rings[0];
    ring.publish(&driver.memory, head);
    ring.kick();
    assert_eq!(ring.wait_used(&driver.memory), (head, 0));
}

/// The ring comes to rest: what its worker had to say has been said.
fn signs(driver: &mut Driver) -> u64 {
    driver.frontend.get_vring_base(0).unwrap();
    driver.rings[0].err.read().unwrap_or(0)
}

#[test]
fn chains_that_cannot_be_followed_are_reported_to_the_frontend() {
    let (server, mut source) = serve();
    let chain = |next| (w(BUFFERS, 4), next);
    for (what, (desc, next)) in [
        ("a loop", chain(0)),
        ("a descriptor past the table", chain(QUEUE_SIZE)),
    ] {
        let mut driver = Driver::connect(&server.socket(), 1, 0);
        driver.start();
        let flags = desc.flags | NEXT;
        driver.rings[0].write_desc(&driver.memory, 0, Desc { flags, ..desc }, next);
        offer(&mut driver, 0);
        assert_eq!(signs(&mut driver), 1, "{what}");
    }
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    source.write_all(b"good").unwrap();
    assert_eq!(driver.run(0, &[w(BUFFERS, 4)]), 4);
    assert_eq!(signs(&mut driver), 0, "nothing is wrong");
}

/// Adds a request that waits for the source's event: there is nothing yet.
fn wait_in_vain(driver: &mut Driver) {
    let ring = &mut driver.rings[0];
    ring.add(&driver.memory, &[w(BUFFERS, 4)]);
    ring.kick();
    // The worker does this behind the kick.
    driver.frontend.set_vring_err(0, &ring.err).unwrap();
    assert_eq!(ring.poll_used(&driver.memory), None);
}

/// DEVICE_NEEDS_RESET of the device's status (virtio 1.4, section 2.1).
const NEEDS_RESET: u8 = 0x40;

/// The crate's frontend has no requests about the status.
fn connection(driver: &Driver) -> Connection {
    // SAFETY: the frontend has it open for as long as it is borrowed.
    let fd = unsafe { BorrowedFd::borrow_raw(driver.frontend.as_raw_fd()) };
    Connection::to_backend(fd.try_clone_to_owned().unwrap().into())
}

fn needs_reset(driver: &Driver) -> u8 {
    let (mut connection, deadline) = (connection(driver), Deadline::after(DEADLINE));
    let ask = Header::request(FrontendReq::GET_STATUS, 0);
    connection.send(ask, &[], &[], &deadline).unwrap();
    let answer = connection.receive(&deadline).unwrap();
    assert_eq!(answer.payload.len(), 8);
    answer.payload[0] & NEEDS_RESET
}

fn set_status(driver: &Driver, status: u64) {
    let (connection, deadline) = (connection(driver), Deadline::after(DEADLINE));
    let header = Header::request(FrontendReq::SET_STATUS, 8);
    let status = status.to_ne_bytes();
    connection.send(header, &status, &[], &deadline).unwrap();
}

/// The event finds the ring broken, which is no reason not to hear of the next one.
#[test]
fn a_device_whose_driver_broke_the_ring_is_heard_after_the_reset() {
    let (server, mut source) = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    let mut requests = Requests::of(&mut driver);
    driver.start();
    wait_in_vain(&mut driver);
    assert_eq!(needs_reset(&driver), 0);
    // Further ahead than the ring is long.
    let index = GuestAddress(driver.rings[0].base + 0x1000 + 2);
    driver.memory.write_obj(QUEUE_SIZE + 1, index).unwrap();
    source.write_all(b"lost").unwrap();
    assert!(readable(&driver.rings[0].err, DEADLINE), "no sign");
    assert!(signs(&mut driver) > 0);
    // The frontend is told to look.
    requests.expect_config_change();
    assert_eq!(needs_reset(&driver), NEEDS_RESET);
    set_status(&driver, 0xf);
    set_status(&driver, 0);
    assert_eq!(needs_reset(&driver), 0);
    drop(driver);

    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    assert_eq!(driver.run(0, &[w(BUFFERS, 4)]), 4, "what had come before");
    wait_in_vain(&mut driver);
    source.write_all(b"late").unwrap();
    assert_eq!(driver.rings[0].wait_used(&driver.memory).1, 4);
}
