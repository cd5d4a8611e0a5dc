//! A host without space left: `outboard-blk` on a small file system of its own.

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{BUFFERS, DEADLINE, Driver, QUEUE_SIZE, connect_within, r, w};
use tempfile::TempDir;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

/// Mounts the file system at the first argument, with an image, and fills most of what is left.
const SET_UP: &str = r#"
mount -t tmpfs -o size=1m none "$1" &&
truncate -s 4M "$1/disk.img" && head -c 768K /dev/zero > "$1/ballast" &&
shift && exec "$@""#;

/// Longer than a held request takes to be tried again.
const A_WHILE: Duration = Duration::from_millis(1500);

/// More than there is space for.
const LEN: u32 = 512 << 10;

const OK: u8 = 0;
const IOERR: u8 = 1;

struct Disk {
    child: Child,
    dir: TempDir,
}

impl Disk {
    fn start(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("mount");
        std::fs::create_dir(&mount).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", SET_UP, "sh"])
            .arg(&mount)
            .arg(env!("CARGO_BIN_EXE_outboard-blk"))
            .arg("--path")
            .arg(mount.join("disk.img"))
            .arg("--socket")
            .arg(dir.path().join("socket"))
            .args(options)
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare(1)");
        Disk { child, dir }
    }

    fn connect(&self) -> Driver {
        connect_within(DEADLINE, &self.dir.path().join("socket"), 1)
    }

    /// Makes space.
    fn drop_ballast(&self) {
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        let ballast = self.dir.path().join("mount/ballast");
        std::fs::remove_file(root.join(ballast.strip_prefix("/").unwrap())).unwrap();
    }

    /// How often the log has `text`, once it is there.
    fn logged(&self, text: &str) -> usize {
        let end = Instant::now() + DEADLINE;
        loop {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            let count = log.matches(text).count();
            if count > 0 {
                return count;
            }
            assert!(Instant::now() < end, "{text:?} is not in {log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where request `slot` has its header, its status and its data.
fn buffers(slot: u64) -> (u64, u64, u64) {
    let at = BUFFERS + 0x10_0000 * slot;
    (at, at + 0x100, at + 0x1000)
}

fn add(driver: &mut Driver, slot: u64, kind: u32, len: u32) -> u16 {
    let (header, status, data) = buffers(slot);
    let memory = &driver.memory;
    memory.write_obj(kind, GuestAddress(header)).unwrap();
    memory.write_obj(0u64, GuestAddress(header + 8)).unwrap();
    memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
    let data = match kind {
        VIRTIO_BLK_T_OUT => r(data, len),
        _ => w(data, len),
    };
    let head = driver.rings[0].add(memory, &[r(header, 16), data, w(status, 1)]);
    driver.rings[0].kick();
    head
}

fn status(driver: &Driver, slot: u64) -> u8 {
    let (_, status, _) = buffers(slot);
    driver.memory.read_obj(GuestAddress(status)).unwrap()
}

/// The next request that comes back, and its status.
fn next(driver: &mut Driver) -> u16 {
    driver.rings[0].wait_used(&driver.memory).0
}

fn comes_back_within(driver: &mut Driver, limit: Duration) -> bool {
    driver.rings[0].want_interrupt(&driver.memory);
    common::readable(&driver.rings[0].call, limit)
}

#[test]
fn a_write_waits_for_space_and_a_read_does_not() {
    let disk = Disk::start(&[]);
    let mut driver = disk.connect();
    driver.start();
    let bytes = vec![7; LEN as usize];
    let (_, _, data) = buffers(0);
    driver
        .memory
        .write_slice(&bytes, GuestAddress(data))
        .unwrap();
    let write = add(&mut driver, 0, VIRTIO_BLK_T_OUT, LEN);
    assert!(!comes_back_within(&mut driver, A_WHILE));
    let read = add(&mut driver, 1, VIRTIO_BLK_T_IN, 512);
    assert_eq!(next(&mut driver), read);
    assert_eq!(status(&driver, 1), OK);
    disk.drop_ballast();
    assert_eq!(next(&mut driver), write);
    assert_eq!(status(&driver, 0), OK);
    assert_eq!(disk.logged("no space left"), 1);
    assert_eq!(disk.logged("there is space for the image again"), 1);
    add(&mut driver, 1, VIRTIO_BLK_T_IN, LEN);
    next(&mut driver);
    let mut read = vec![0; LEN as usize];
    let (_, _, data) = buffers(1);
    driver
        .memory
        .read_slice(&mut read, GuestAddress(data))
        .unwrap();
    assert!(read == bytes);
}

#[test]
fn a_queue_with_a_write_that_waits_stops() {
    let disk = Disk::start(&[]);
    let mut driver = disk.connect();
    driver.start();
    let write = add(&mut driver, 0, VIRTIO_BLK_T_OUT, LEN);
    disk.logged("no space left");
    // Without a record of it the driver has to hear of it.
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 1);
    assert_eq!(next(&mut driver), write);
    assert_eq!(status(&driver, 0), IOERR);
}

#[test]
fn a_recorded_write_that_waits_is_executed_when_its_queue_runs_again() {
    let disk = Disk::start(&[]);
    let mut driver = disk.connect();
    let want = VhostUserInflight::new(0, 0, 1, QUEUE_SIZE);
    let (place, record) = driver.frontend.get_inflight_fd(&want).unwrap();
    let fd = record.as_raw_fd();
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    driver.start();
    let write = add(&mut driver, 0, VIRTIO_BLK_T_OUT, LEN);
    disk.logged("no space left");
    let base = driver.frontend.get_vring_base(0).unwrap();
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);
    disk.drop_ballast();
    driver.set_up_ring(0, base as u16);
    driver.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(next(&mut driver), write);
    assert_eq!(status(&driver, 0), OK);
}

#[test]
fn a_device_with_a_write_that_waits_is_reset() {
    let disk = Disk::start(&[]);
    let mut driver = disk.connect();
    driver.start();
    add(&mut driver, 0, VIRTIO_BLK_T_OUT, LEN);
    disk.logged("no space left");
    driver.frontend.reset_device().unwrap();
    driver.frontend.get_features().unwrap();
}

#[test]
fn a_write_without_space_fails_where_that_is_asked_for() {
    let disk = Disk::start(&["--enospc=error"]);
    let mut driver = disk.connect();
    driver.start();
    let write = add(&mut driver, 0, VIRTIO_BLK_T_OUT, LEN);
    assert_eq!(next(&mut driver), write);
    assert_eq!(status(&driver, 0), IOERR);
}
