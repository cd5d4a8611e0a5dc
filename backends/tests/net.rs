//! `outboard-net`'s device behind a real socket, with a pair of datagram sockets for a link.

mod common;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

use backends::net::backend::NetDevice;
use backends::net::config::{MacAddress, NetConfig};
use backends::net::link::Link;
use common::{BUFFERS, DEADLINE, Driver, Server, r, readable, w};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vm_memory::{Bytes, GuestAddress};

const RX: usize = 0;
const TX: usize = 1;
const HEADER: usize = 12;

struct Datagrams(UnixDatagram);

impl AsFd for Datagrams {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Link for Datagrams {
    fn set_header_size(&self, _bytes: usize) -> io::Result<()> {
        Ok(())
    }
}

/// A network daemon and the far end of its link.
fn serve() -> (Server, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_read_timeout(Some(DEADLINE)).unwrap();
    let config = NetConfig {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: Some(1400),
    };
    let device = NetDevice::new(Datagrams(near), config).unwrap();
    let server = Server::start_device(tempfile::tempdir().unwrap(), device);
    (server, far)
}

/// A header of zeroes and a packet of `len` bytes that are all `byte`.
fn packet(byte: u8, len: usize) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet.resize(HEADER + len, byte);
    packet
}

#[test]
fn packets_pass_both_ways() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    let (_, config) = driver
        .frontend
        .get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12])
        .unwrap();
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0x78, 0x05]);
    driver.start();

    // Out, in two pieces that split the header.
    let sent = packet(0x5a, 100);
    driver
        .memory
        .write_slice(&sent, GuestAddress(BUFFERS))
        .unwrap();
    assert_eq!(driver.run(TX, &[r(BUFFERS, 7), r(BUFFERS + 7, 105)]), 0);
    let mut got = [0; 2048];
    let len = far.recv(&mut got).unwrap();
    assert_eq!(got[..len], sent);

    // In, before there is a buffer and after.
    far.send(&packet(1, 60)).unwrap();
    for (i, byte) in [1u8, 2].into_iter().enumerate() {
        if byte == 2 {
            far.send(&packet(2, 60)).unwrap();
        }
        let at = BUFFERS + 0x1000 * (i as u64 + 1);
        let len = driver.run(RX, &[w(at, 8), w(at + 8, 1500)]);
        assert_eq!(len, 72);
        let mut got = vec![0; 72];
        driver
            .memory
            .read_slice(&mut got, GuestAddress(at))
            .unwrap();
        let mut expected = packet(byte, 60);
        expected[10] = 1; // num_buffers
        assert_eq!(got, expected);
    }
}

#[test]
fn buffers_wait_for_packets() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    for i in 0..8 {
        driver.rings[RX].add(&driver.memory, &[w(BUFFERS + 0x1000 * i, 0x1000)]);
    }
    driver.rings[RX].kick();
    for round in 0..8 {
        far.send(&packet(round as u8, 200 + round)).unwrap();
        let (_, len) = driver.rings[RX].wait_used(&driver.memory);
        assert_eq!(len as usize, HEADER + 200 + round);
    }
}

#[test]
fn a_packet_too_long_for_its_buffer_is_dropped_and_the_buffer_kept() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    far.send(&packet(1, 500)).unwrap();
    far.send(&packet(2, 489)).unwrap();
    far.send(&packet(3, 488)).unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS, 500)]), 500);
    let byte: u8 = driver.memory.read_obj(GuestAddress(BUFFERS + 12)).unwrap();
    assert_eq!(byte, 3);
}

#[test]
fn useless_buffers_come_back_empty_and_harm_nobody() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    far.send(&packet(9, 60)).unwrap();
    // Too small for a header; outside memory; not writable.
    assert_eq!(driver.run(RX, &[w(BUFFERS, 11)]), 0);
    assert_eq!(driver.run(RX, &[w(u64::MAX - 100, 1500)]), 0);
    assert_eq!(driver.run(RX, &[r(BUFFERS, 1500)]), 0);
    assert_eq!(driver.run(RX, &[w(BUFFERS, 1500)]), 72);
    // The same for sending, and a packet that no link takes.
    assert_eq!(driver.run(TX, &[r(BUFFERS, 11)]), 0);
    assert_eq!(driver.run(TX, &[r(u64::MAX - 100, 1500)]), 0);
    assert_eq!(driver.run(TX, &[w(BUFFERS, 1500)]), 0);
    assert_eq!(driver.run(TX, &[r(0x20_0000, 8 << 20)]), 0);
    assert!(!readable(&far, std::time::Duration::ZERO));
    assert_eq!(driver.run(TX, &[r(BUFFERS, 72)]), 0);
    assert!(readable(&far, DEADLINE));
}

#[test]
fn nothing_passes_while_rings_are_disabled() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.set_mem_table();
    driver.set_up_ring(RX, 0);
    driver.rings[RX].add(&driver.memory, &[w(BUFFERS, 1500)]);
    far.send(&packet(1, 60)).unwrap();
    driver.frontend.get_features().unwrap();
    assert_eq!(driver.rings[RX].poll_used(&driver.memory), None);
    driver.frontend.set_vring_enable(RX, true).unwrap();
    assert_eq!(driver.rings[RX].wait_used(&driver.memory).1, 72);
}
