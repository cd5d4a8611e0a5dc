//! `outboard-net`'s device behind a real socket, with a pair of datagram sockets for a link.

mod common;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use backends::net::backend::NetDevice;
use backends::net::config::{MacAddress, NetConfig};
use backends::net::link::Link;
use backends::net::pcap::Capture;
use backends::net::stream::FrameStream;
use backends::peer::Meet;
use common::requests::Requests;
use common::{BUFFERS, DEADLINE, Driver, QUEUE_SIZE, Server, r, readable, w};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight,
};
use vm_memory::{Bytes, GuestAddress};

const RX: usize = 0;
const TX: usize = 1;
const CONTROL: usize = 2;
const HEADER: usize = 12;
const MERGEABLE: u64 = 1 << 15;

struct Datagrams(UnixDatagram);

impl Link for Datagrams {
    fn configure(&self, _header_size: usize, _guest_offloads: u64) -> io::Result<()> {
        Ok(())
    }

    fn ready_fd(&self, _pair: u16) -> RawFd {
        self.0.as_raw_fd()
    }

    fn receive(&self, _pair: u16, _header: usize, packet: &mut [u8]) -> io::Result<Option<usize>> {
        match self.0.recv(packet) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            result => result.map(Some),
        }
    }

    fn packet_fd(&self, _pair: u16) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
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
    let device = NetDevice::new(Datagrams(near), config, None).unwrap();
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
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
    let (_, config) = driver
        .frontend
        .get_config(0, 12, VhostUserConfigFlags::empty(), &[0; 12])
        .unwrap();
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0x78, 0x05]);
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
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
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
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
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
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
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
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
    driver.set_mem_table();
    driver.set_up_ring(RX, 0);
    driver.rings[RX].add(&driver.memory, &[w(BUFFERS, 1500)]);
    far.send(&packet(1, 60)).unwrap();
    driver.frontend.get_features().unwrap();
    assert_eq!(driver.rings[RX].poll_used(&driver.memory), None);
    driver.frontend.set_vring_enable(RX, true).unwrap();
    assert_eq!(driver.rings[RX].wait_used(&driver.memory).1, 72);
}

fn send(driver: &mut Driver, byte: u8) {
    let at = GuestAddress(BUFFERS);
    driver.memory.write_slice(&packet(byte, 60), at).unwrap();
    assert_eq!(driver.run(TX, &[r(BUFFERS, 72)]), 0);
}

/// The first byte of the next packet at the far end.
fn received(far: &UnixDatagram) -> u8 {
    let mut got = [0; 2048];
    assert_eq!(far.recv(&mut got).unwrap(), 72);
    got[HEADER]
}

/// vhost-user document, "Ring states".
#[test]
fn packets_are_discarded_once_their_ring_is_disabled() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
    driver.start();
    send(&mut driver, 1);
    assert_eq!(received(&far), 1);
    for ring in [RX, TX] {
        driver.frontend.set_vring_enable(ring, false).unwrap();
    }
    // Twice is once.
    driver.frontend.set_vring_enable(TX, false).unwrap();
    for _ in 0..3 * QUEUE_SIZE {
        send(&mut driver, 2);
    }
    // To the guest nothing comes meanwhile.
    driver.rings[RX].add(&driver.memory, &[w(BUFFERS + 0x1000, 1500)]);
    driver.rings[RX].kick();
    far.send(&packet(3, 60)).unwrap();
    assert_eq!(driver.frontend.get_vring_base(RX).unwrap(), 0);
    driver.frontend.set_vring_enable(TX, true).unwrap();
    send(&mut driver, 4);
    assert_eq!(received(&far), 4);
    driver.frontend.set_vring_enable(RX, true).unwrap();
    driver.set_up_ring(RX, 0);
    assert_eq!(driver.rings[RX].wait_used(&driver.memory).1, 72);
}

/// As at a pause, or with the next process: the ring is started before it is enabled.
#[test]
fn packets_of_a_stopped_ring_wait_until_it_is_enabled() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 2, MERGEABLE);
    driver.start();
    for (byte, disabled_first) in [(1, false), (2, true)] {
        if disabled_first {
            driver.frontend.set_vring_enable(TX, false).unwrap();
        }
        let base = driver.frontend.get_vring_base(TX).unwrap();
        if !disabled_first {
            driver.frontend.set_vring_enable(TX, false).unwrap();
        }
        let sent = packet(byte, 60);
        driver
            .memory
            .write_slice(&sent, GuestAddress(BUFFERS))
            .unwrap();
        driver.rings[TX].add(&driver.memory, &[r(BUFFERS, 72)]);
        driver.set_up_ring(TX, base as u16);
        driver.rings[TX].kick();
        // It would have been taken by then.
        let ring = &mut driver.rings[TX];
        driver.frontend.set_vring_err(TX, &ring.err).unwrap();
        assert_eq!(ring.poll_used(&driver.memory), None);
        driver.frontend.set_vring_enable(TX, true).unwrap();
        assert_eq!(received(&far), byte);
        ring.wait_used(&driver.memory);
    }
}

/// A packet is spread over buffers, which come back together, and waits until there are enough.
#[test]
fn a_long_packet_fills_several_buffers_at_once() {
    let (server, far) = serve();
    for without in [0, 1 << 29] {
        let mut driver = Driver::connect(&server.socket(), 3, without);
        driver.start();
        let ring = &mut driver.rings[RX];
        let mut sent = vec![0; HEADER];
        sent.extend((0..3500).map(|i| ((i * 7) >> 3) as u8));
        // Two buffers of 1500 are not enough.
        for i in 0..2 {
            ring.add(&driver.memory, &[w(BUFFERS + 0x1000 * i, 1500)]);
        }
        far.send(&sent).unwrap();
        ring.kick();
        driver.frontend.get_queue_num().unwrap();
        assert_eq!(ring.poll_used(&driver.memory), None);
        ring.add(
            &driver.memory,
            &[w(BUFFERS + 0x2000, 700), w(BUFFERS + 0x3000, 800)],
        );
        ring.kick();
        let mut got = vec![];
        for i in 0..3u64 {
            let (_, len) = if i == 0 {
                ring.wait_used(&driver.memory)
            } else {
                ring.poll_used(&driver.memory).expect("all of them at once")
            };
            let mut bytes = vec![0; len as usize];
            let at = GuestAddress(BUFFERS + 0x1000 * i);
            driver.memory.read_slice(&mut bytes, at).unwrap();
            got.extend(bytes);
        }
        sent[10] = 3; // num_buffers
        assert_eq!(got.len(), sent.len());
        assert!(got == sent);
        // And a short one after it.
        far.send(&packet(1, 60)).unwrap();
        assert_eq!(driver.run(RX, &[w(BUFFERS, 1500)]), 72);
    }
}

/// Sends a command and returns the answer.
fn command(driver: &mut Driver, bytes: &[u8]) -> u8 {
    command_on(CONTROL, driver, bytes)
}

fn command_on(queue: usize, driver: &mut Driver, bytes: &[u8]) -> u8 {
    let memory = &driver.memory;
    memory.write_slice(bytes, GuestAddress(BUFFERS)).unwrap();
    memory
        .write_obj(0x77u8, GuestAddress(BUFFERS + 0x1000))
        .unwrap();
    let len = bytes.len() as u32;
    let chain = [
        r(BUFFERS, 2),
        r(BUFFERS + 2, len - 2),
        w(BUFFERS + 0x1000, 1),
    ];
    assert_eq!(driver.run(queue, &chain), 1);
    driver
        .memory
        .read_obj(GuestAddress(BUFFERS + 0x1000))
        .unwrap()
}

#[test]
fn the_control_queue_is_obeyed() {
    let (server, far) = serve();
    let mut driver = Driver::connect(&server.socket(), 3, 0);
    driver.start();
    let addressed = |to: u8| {
        let mut packet = packet(0, 60);
        packet[HEADER..HEADER + 6].copy_from_slice(&[2, 0, 0, 0, 0, to]);
        packet[HEADER + 20] = to;
        packet
    };
    // Not promiscuous any more: of these only the second is for us.
    assert_eq!(command(&mut driver, &[0, 0, 0]), 0);
    far.send(&addressed(9)).unwrap();
    far.send(&addressed(1)).unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS, 1500)]), 72);
    let at = GuestAddress(BUFFERS + HEADER as u64 + 20);
    assert_eq!(driver.memory.read_obj::<u8>(at).unwrap(), 1);
    // Another address, which the configuration space then has.
    assert_eq!(command(&mut driver, &[1, 1, 2, 0, 0, 0, 0, 9]), 0);
    let flags = VhostUserConfigFlags::empty();
    let config = driver.frontend.get_config(0, 6, flags, &[0; 6]).unwrap();
    assert_eq!(config.1, [2, 0, 0, 0, 0, 9]);
    far.send(&addressed(1)).unwrap();
    far.send(&addressed(9)).unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS, 1500)]), 72);
    assert_eq!(driver.memory.read_obj::<u8>(at).unwrap(), 9);
    // One pair has no others; unknown commands; no place for an answer.
    assert_eq!(command(&mut driver, &[4, 0, 2, 0]), 1);
    assert_eq!(command(&mut driver, &[9, 9, 9]), 1);
    assert_eq!(driver.run(CONTROL, &[r(BUFFERS, 3)]), 0);
    assert_eq!(driver.run(CONTROL, &[w(BUFFERS, 1)]), 1);
    // The next driver starts from the beginning.
    drop(driver);
    let mut driver = Driver::connect(&server.socket(), 3, 0);
    let config = driver.frontend.get_config(0, 6, flags, &[0; 6]).unwrap();
    assert_eq!(config.1, [2, 0, 0, 0, 0, 1]);
}

/// A link of two pairs that notes how many are in use.
struct Pairs(Datagrams, Arc<AtomicU16>);

impl Link for Pairs {
    fn pairs(&self) -> u16 {
        2
    }

    fn configure(&self, header_size: usize, guest_offloads: u64) -> io::Result<()> {
        self.0.configure(header_size, guest_offloads)
    }

    fn set_pairs(&self, active: u16) -> io::Result<()> {
        self.1.store(active, Ordering::SeqCst);
        Ok(())
    }

    fn ready_fd(&self, pair: u16) -> RawFd {
        self.0.ready_fd(pair)
    }

    fn receive(&self, pair: u16, header: usize, packet: &mut [u8]) -> io::Result<Option<usize>> {
        self.0.receive(pair, header, packet)
    }

    fn packet_fd(&self, pair: u16) -> Option<BorrowedFd<'_>> {
        self.0.packet_fd(pair)
    }
}

/// A daemon with such a link, the pairs in use, and the far end, which has to stay.
fn serve_pairs() -> (Server, Arc<AtomicU16>, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let config = NetConfig {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: None,
    };
    let active = Arc::new(AtomicU16::new(0));
    let link = Pairs(Datagrams(near), Arc::clone(&active));
    let device = NetDevice::new(link, config, None).unwrap();
    let server = Server::start_device(tempfile::tempdir().unwrap(), device);
    (server, active, far)
}

/// Behind two pairs.
const CONTROL_OF_TWO: usize = 4;

/// The status in the configuration space: link up, announce.
fn status(driver: &mut Driver) -> Vec<u8> {
    let flags = VhostUserConfigFlags::empty();
    driver.frontend.get_config(6, 2, flags, &[0; 2]).unwrap().1
}

fn mac(driver: &mut Driver) -> Vec<u8> {
    let flags = VhostUserConfigFlags::empty();
    driver.frontend.get_config(0, 6, flags, &[0; 6]).unwrap().1
}

/// Two pairs in use, and an address of its own.
fn set_wishes(driver: &mut Driver) {
    assert_eq!(command_on(CONTROL_OF_TWO, driver, &[4, 0, 2, 0]), 0);
    let address = [1, 1, 2, 0, 0, 0, 0, 9];
    assert_eq!(command_on(CONTROL_OF_TWO, driver, &address), 0);
}

#[test]
fn what_the_driver_has_set_is_in_the_record_for_the_next_process() {
    let (server, active, _far) = serve_pairs();
    let mut driver = Driver::connect(&server.socket(), 5, 0);
    let want = VhostUserInflight::new(0, 0, 5, common::QUEUE_SIZE);
    let (place, file) = driver.frontend.get_inflight_fd(&want).unwrap();
    let fd = file.as_raw_fd();
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    driver.start();
    set_wishes(&mut driver);
    assert_eq!(active.load(Ordering::SeqCst), 2);
    drop((driver, server));

    let (server, active, _far) = serve_pairs();
    let mut driver = Driver::connect(&server.socket(), 5, 0);
    assert_eq!(mac(&mut driver), [2, 0, 0, 0, 0, 1]);
    assert_eq!(active.load(Ordering::SeqCst), 1);
    let (mut notified, theirs) = UnixStream::pair().unwrap();
    notified.set_read_timeout(Some(DEADLINE)).unwrap();
    driver.frontend.set_backend_request_fd(&theirs).unwrap();
    assert_eq!(status(&mut driver), [1, 0]);
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    assert_eq!(mac(&mut driver), [2, 0, 0, 0, 0, 9]);
    assert_eq!(active.load(Ordering::SeqCst), 2);
    // The driver is asked to announce itself.
    notified.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(status(&mut driver), [3, 0]);

    // The next driver asks for itself.
    driver.frontend.reset_device().unwrap();
    assert_eq!(mac(&mut driver), [2, 0, 0, 0, 0, 1]);
    driver.frontend.set_features(driver.features).unwrap();
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    assert_eq!(mac(&mut driver), [2, 0, 0, 0, 0, 1]);
    assert_eq!(active.load(Ordering::SeqCst), 1);
}

/// Has the backend save its state, or load it.
fn transfer(driver: &Driver, direction: VhostTransferStateDirection, fd: OwnedFd) -> bool {
    let phase = VhostTransferStatePhase::STOPPED;
    let begun = driver.frontend.set_device_state_fd(direction, phase, fd);
    begun.is_ok()
}

#[test]
fn what_the_driver_has_set_is_saved_and_loaded() {
    use VhostTransferStateDirection::{LOAD, SAVE};

    let (server, _active, _far) = serve_pairs();
    let mut driver = Driver::connect(&server.socket(), 5, 0);
    driver.start();
    set_wishes(&mut driver);
    let (mut reader, writer) = io::pipe().unwrap();
    // Not while a queue runs.
    let refused = writer.try_clone().unwrap();
    assert!(!transfer(&driver, SAVE, refused.into()));
    for queue in 0..5 {
        driver.frontend.get_vring_base(queue).unwrap();
    }
    assert!(transfer(&driver, SAVE, writer.into()));
    let mut state = Vec::new();
    reader.read_to_end(&mut state).unwrap();
    driver.frontend.check_device_state().unwrap();

    let (server, active, _far) = serve_pairs();
    // A device that is asked for less than the state has.
    const MQ: u64 = 1 << 22;
    for (without, loads) in [(MQ, false), (0, true)] {
        let mut driver = Driver::connect(&server.socket(), 5, without);
        let (reader, mut writer) = io::pipe().unwrap();
        assert!(transfer(&driver, LOAD, reader.into()));
        writer.write_all(&state).unwrap();
        drop(writer);
        assert_eq!(driver.frontend.check_device_state().is_ok(), loads);
        let last = if loads { 9 } else { 1 };
        assert_eq!(mac(&mut driver), [2, 0, 0, 0, 0, last]);
        let pairs = if loads { 2 } else { 1 };
        assert_eq!(active.load(Ordering::SeqCst), pairs);
        if loads {
            assert_eq!(status(&mut driver), [3, 0]);
            driver.start();
            assert_eq!(command_on(CONTROL_OF_TWO, &mut driver, &[3, 0, 0]), 0);
            assert_eq!(status(&mut driver), [1, 0]);
        }
    }
}

/// A daemon whose link is a socket that the test listens on, and its capture file.
fn serve_stream() -> (Server, UnixListener, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("peer");
    let listener = UnixListener::bind(&path).unwrap();
    let link = FrameStream::start(Meet::Connect(path)).unwrap();
    let config = NetConfig {
        mac: MacAddress([2, 0, 0, 0, 0, 1]),
        mtu: None,
    };
    let captured = dir.path().join("capture");
    let capture = Capture::create(&captured).unwrap();
    let device = NetDevice::new(link, config, Some(capture)).unwrap();
    (Server::start_device(dir, device), listener, captured)
}

fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes(), frame].concat()
}

#[test]
fn frames_pass_over_a_stream_whose_other_end_comes_and_goes() {
    let (server, mut listener, captured) = serve_stream();
    let mut driver = Driver::connect(&server.socket(), 3, 0);
    let mut requests = Requests::of(&mut driver);
    let mut peer = accept(&listener);
    driver.start();
    for round in 0..2u8 {
        // Two frames in three pieces.
        let (first, second) = ([round; 60], [round + 100; 1514]);
        let bytes = [framed(&first), framed(&second)].concat();
        for piece in [&bytes[..2], &bytes[2..100], &bytes[100..]] {
            peer.write_all(piece).unwrap();
        }
        assert_eq!(driver.run(RX, &[w(BUFFERS, 1600)]), 72);
        assert_eq!(driver.run(RX, &[w(BUFFERS, 1600)]), 12 + 1514);
        let sent = packet(round, 100);
        driver
            .memory
            .write_slice(&sent, GuestAddress(BUFFERS))
            .unwrap();
        assert_eq!(driver.run(TX, &[r(BUFFERS, 112)]), 0);
        let mut got = [0; 104];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got[..], framed(&[round; 100]));
        // What is no frame goes neither way: passt, and this backend, close the connection for one.
        peer.write_all(&[framed(&[round; 13]), framed(&[round; 14])].concat())
            .unwrap();
        assert_eq!(driver.run(RX, &[w(BUFFERS, 1600)]), 12 + 14);
        for len in [12, 25, 12 + 65536, 26] {
            assert_eq!(driver.run(TX, &[r(BUFFERS, len)]), 0);
        }
        let mut got = [0; 18];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got[..4], 14u32.to_be_bytes());
        // Nonsense is the end of a peer. The driver hears that the link is down, and up again:
        // not of a loss that is over before anybody looked, so that there is no new peer yet.
        let path = captured.with_file_name("peer");
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        peer.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let mut left = vec![];
        driver.rings[RX].add(&driver.memory, &[w(BUFFERS, 1600)]);
        driver.rings[RX].kick();
        peer.read_to_end(&mut left).unwrap();
        requests.expect_config_change();
        listener = UnixListener::bind(&path).unwrap();
        peer = accept(&listener);
        peer.write_all(&framed(&[7; 60])).unwrap();
        assert_eq!(driver.rings[RX].wait_used(&driver.memory).1, 72);
    }
    let captured = std::fs::read(captured).unwrap();
    // Seven frames a round, one of them too long for the link.
    assert_eq!(
        captured.len(),
        24 + 2 * (7 * 16 + 60 + 1514 + 100 + 14 + 65536 + 14 + 60)
    );
}
