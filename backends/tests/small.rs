//! The small devices behind a real socket: `outboard-rng` and `outboard-console`.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backends::console::Console;
use backends::console::terminal::Terminal;
use backends::rng::Rng;
use backends::rng::limit::Limit;
use backends::shutdown::Shutdown;
use common::{BUFFERS, DEADLINE, Driver, Server, r, w};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserConfigFlags;
use vm_memory::{Bytes, GuestAddress};

/// Queues of a console.
const RX: usize = 0;
const TX: usize = 1;

fn bytes(driver: &Driver, at: u64, len: u32) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    driver
        .memory
        .read_slice(&mut bytes, GuestAddress(at))
        .unwrap();
    bytes
}

fn mkfifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status().unwrap();
    assert!(made.success());
}

#[test]
fn random_bytes_are_those_of_the_source_and_are_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("source");
    mkfifo(&path);
    // Held open for writing: else each writer's end would be the end of the pipe.
    let mut source = File::options().read(true).write(true).open(&path).unwrap();
    let server = Server::start_device(dir, Rng::open(&path, None).unwrap());
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    source.write_all(b"0123456789").unwrap();
    assert_eq!(driver.run(0, &[w(BUFFERS, 4), w(BUFFERS + 100, 4)]), 8);
    assert_eq!(bytes(&driver, BUFFERS, 4), b"0123");
    assert_eq!(bytes(&driver, BUFFERS + 100, 4), b"4567");
    assert_eq!(driver.run(0, &[w(BUFFERS, 64)]), 2);
    // The source is empty: the request waits, and is served when there is something.
    driver.rings[0].add(&driver.memory, &[w(BUFFERS, 64)]);
    driver.rings[0].kick();
    driver.frontend.get_queue_num().unwrap();
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);
    source.write_all(b"late").unwrap();
    assert_eq!(driver.rings[0].wait_used(&driver.memory).1, 4);
    assert_eq!(bytes(&driver, BUFFERS, 4), b"late");
    // Useless buffers come back empty.
    source.write_all(b"more").unwrap();
    assert_eq!(driver.run(0, &[r(BUFFERS, 64)]), 0);
    assert_eq!(driver.run(0, &[w(u64::MAX - 100, 4)]), 0);
    source.write_all(b"end").unwrap();
    assert_eq!(driver.run(0, &[w(BUFFERS, 64)]), 3);
}

#[test]
fn a_limited_rng_gives_the_rest_in_the_next_period() {
    let dir = tempfile::tempdir().unwrap();
    let limit = Limit {
        max_bytes: 6,
        period: Duration::from_millis(50),
    };
    let rng = Rng::open(Path::new("/dev/zero"), Some(limit)).unwrap();
    let server = Server::start_device(dir, rng);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    let begin = Instant::now();
    let mut given = 0;
    while given < 60 {
        let len = driver.run(0, &[w(BUFFERS, 64)]);
        assert!((1..=6).contains(&len), "{len} bytes");
        given += len;
    }
    // Ten periods' worth, of which the first two may lie around one moment.
    assert!(begin.elapsed() >= 8 * limit.period);
}

fn console(target: &str, dir: tempfile::TempDir) -> (Server, Driver) {
    let quit = Shutdown::new().unwrap().handle();
    let terminal = Terminal::open(&target.parse().unwrap(), quit).unwrap();
    let server = Server::start_device(dir, Console::new(terminal));
    let mut driver = Driver::connect(&server.socket(), 2, 0);
    driver.start();
    (server, driver)
}

#[test]
fn a_console_carries_bytes_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    let (_server, mut driver) = console(&format!("unix={}", path.display()), dir);
    // Nobody there: output is taken all the same.
    driver
        .memory
        .write_slice(b"hello", GuestAddress(BUFFERS))
        .unwrap();
    assert_eq!(driver.run(TX, &[r(BUFFERS, 5)]), 0);
    let mut client = UnixStream::connect(&path).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.write_all(b"typed").unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS + 0x1000, 3)]), 3);
    assert_eq!(driver.run(RX, &[w(BUFFERS + 0x2000, 30)]), 2);
    assert_eq!(bytes(&driver, BUFFERS + 0x1000, 3), b"typ");
    assert_eq!(bytes(&driver, BUFFERS + 0x2000, 2), b"ed");
    assert_eq!(driver.run(TX, &[r(BUFFERS, 2), r(BUFFERS + 2, 3)]), 0);
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    // Input for which there is no buffer yet waits.
    client.write_all(b"early").unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS, 30)]), 5);
    // Useless buffers.
    assert_eq!(driver.run(RX, &[r(BUFFERS, 30)]), 0);
    assert_eq!(driver.run(TX, &[r(u64::MAX - 100, 5)]), 0);
    assert_eq!(driver.run(TX, &[w(BUFFERS, 5)]), 0);
}

#[test]
fn a_reader_that_sleeps_does_not_hold_the_guest_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("console");
    let (_server, mut driver) = console(&format!("unix={}", path.display()), dir);
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(driver.run(RX, &[w(BUFFERS, 1)]), 1);
    // 16 MiB, far more than a socket holds.
    for _ in 0..256 {
        assert_eq!(driver.run(TX, &[r(BUFFERS, 1 << 16)]), 0);
    }
}

#[test]
fn emergency_output_needs_no_ring() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let (_server, mut driver) = console(&format!("file={}", path.display()), dir);
    let write = |driver: &mut Driver, offset, bytes: &[u8]| {
        let flags = VhostUserConfigFlags::WRITABLE;
        driver.frontend.set_config(offset, flags, bytes)
    };
    for byte in b"oops" {
        write(&mut driver, 8, &[*byte, 0, 0, 0]).unwrap();
    }
    assert!(write(&mut driver, 0, b"x").is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"oops");
}

/// `outboard-console` on a terminal of the test's.
fn on_terminal(master: &OwnedFd, socket: &Path) -> Child {
    let name = rustix::pty::ptsname(master, Vec::new()).unwrap();
    let slave = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_outboard-console"))
        .arg("--socket")
        .arg(socket)
        .stdin(slave.try_clone().unwrap())
        .stdout(slave)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn the_user_s_terminal_is_raw_meanwhile_and_ctrl_a_x_ends_it() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, unlockpt};
    use rustix::termios::{LocalModes, tcgetattr};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let echoes = || {
        let modes = tcgetattr(&master).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    };
    assert!(echoes());
    let mut child = on_terminal(&master, &socket);
    let mut driver = common::connect_within(DEADLINE, &socket, 2);
    driver.start();
    assert!(!echoes());
    let mut user = File::from(master.try_clone().unwrap());
    user.write_all(b"ls\r\x03").unwrap();
    let len = driver.run(RX, &[w(BUFFERS, 30)]);
    assert_eq!(bytes(&driver, BUFFERS, len), b"ls\r\x03");
    assert_eq!(driver.run(TX, &[r(BUFFERS, 2)]), 0);
    let mut got = [0; 2];
    user.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ls");
    driver.rings[RX].add(&driver.memory, &[w(BUFFERS, 30)]);
    driver.rings[RX].kick();
    user.write_all(b"\x01x").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(echoes(), "the terminal is as it was");
}
