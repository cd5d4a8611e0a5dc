//! Requests in flight outlive the backend: the record as a frontend sees it, and `outboard-blk`
//! killed in the middle of its work.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backends::blk::backend::BlkDevice;
use backends::blk::full::Enospc;
use backends::blk::image::Image;
use backends::blk::request::Disk;
use common::{BUFFERS, DEADLINE, Driver, QUEUE_SIZE, Server, r, w};
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserInflight;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT};
use vm_memory::{Bytes, GuestAddress};

const KILLS: usize = 50;
/// Chains kept in the ring: three descriptors each.
const DEPTH: usize = 16;
/// Bytes of a request.
const LEN: u64 = 16384;
/// Places on the disk, each written again and again.
const PLACES: u64 = 256;

/// Asks the backend for a record of one ring.
fn record(driver: &mut Driver) -> (VhostUserInflight, File) {
    let want = VhostUserInflight::new(0, 0, 1, QUEUE_SIZE);
    driver.frontend.get_inflight_fd(&want).unwrap()
}

fn serve() -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let disk = Disk::new(Image::open(&path, false).unwrap(), "serial-0");
    Server::start_device(dir, BlkDevice::new(disk, 1, Enospc::Wait).unwrap())
}

/// Buffers of request `slot`: header, status, data.
fn buffers(slot: u64) -> (u64, u64, u64) {
    let at = BUFFERS + 0x8000 * slot;
    (at, at + 0x100, at + 0x200)
}

fn put_header(driver: &Driver, slot: u64, kind: u32, sector: u64) {
    let (header, status, _) = buffers(slot);
    let memory = &driver.memory;
    memory.write_obj(kind, GuestAddress(header)).unwrap();
    memory.write_obj(0u32, GuestAddress(header + 4)).unwrap();
    memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
    memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
}

#[test]
fn the_record_belongs_to_the_frontend() {
    let server = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    let (place, file) = record(&mut driver);
    assert_eq!((place.mmap_offset, place.num_queues), (0, 1));
    assert_eq!(place.queue_size, QUEUE_SIZE);
    assert_eq!(file.metadata().unwrap().len(), place.mmap_size);
    let fd = file.as_raw_fd();
    // Refused, and the session continues.
    for (size, offset, queues) in [
        // Entries, and no header. A device that has state can do without room for it.
        (16 * u64::from(QUEUE_SIZE), 0, 1),
        (place.mmap_size, 4096, 1),
        (place.mmap_size, 0, 2),
    ] {
        let wrong = VhostUserInflight::new(size, offset, queues, QUEUE_SIZE);
        assert!(driver.frontend.set_inflight_fd(&wrong, fd).is_err());
    }
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    driver.start();
    put_header(&driver, 0, VIRTIO_BLK_T_GET_ID, 0);
    let (header, status, data) = buffers(0);
    let used = driver.run(0, &[r(header, 16), w(data, 20), w(status, 1)]);
    assert_eq!(used, 21);
    // The backend wrote into what the frontend holds.
    let version = |file: &File| {
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, 8).unwrap();
        u16::from_le_bytes(bytes)
    };
    assert_eq!(version(&file), 1);
}

#[test]
fn what_another_backend_left_comes_first_and_in_its_order() {
    let server = serve();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    let (place, file) = record(&mut driver);
    // Three requests, of which the record knows the first two as taken, in the other order.
    let mut heads = Vec::new();
    for slot in 0..3 {
        put_header(&driver, slot, VIRTIO_BLK_T_GET_ID, 0);
        let (header, status, data) = buffers(slot);
        let chain = [r(header, 16), w(data, 20), w(status, 1)];
        heads.push(driver.rings[0].add(&driver.memory, &chain));
    }
    file.write_all_at(&[1, 0, QUEUE_SIZE as u8, 0], 8).unwrap();
    for (head, counter) in [(heads[0], 10u64), (heads[1], 9)] {
        let entry = 16 + 16 * u64::from(head);
        file.write_all_at(&[1], entry).unwrap();
        file.write_all_at(&counter.to_le_bytes(), entry + 8)
            .unwrap();
    }
    let fd = file.as_raw_fd();
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    // The base that the frontend gives does not count.
    driver.set_mem_table();
    driver.set_up_ring(0, 0);
    driver.frontend.set_vring_enable(0, true).unwrap();
    for head in [heads[1], heads[0], heads[2]] {
        assert_eq!(driver.rings[0].wait_used(&driver.memory), (head, 21));
    }
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 3);
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// `outboard-blk`, which may be killed.
struct Blk(Child);

impl Blk {
    fn start(image: &Path, socket: &Path, options: &[&str]) -> (Self, UnixStream) {
        let child = Command::new(env!("CARGO_BIN_EXE_outboard-blk"))
            .arg("--path")
            .arg(image)
            .arg("--socket")
            .arg(socket)
            .args(options)
            .env("RUST_LOG", "warn")
            .spawn()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            // The socket of the one before is there and refuses until it is replaced.
            match UnixStream::connect(socket) {
                Ok(stream) => return (Blk(child), stream),
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(e) => panic!("no backend: {e}"),
            }
        }
    }

    /// SIGKILL.
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a request should come to.
#[derive(Debug, Clone, Copy)]
struct Request {
    slot: u64,
    /// For a read, the number of the write whose data it has to find.
    read: Option<u64>,
}

/// Keeps the ring full of writes, and of reads of what was written before; checks all that comes
/// back.
struct Workload {
    /// Requests made.
    made: u64,
    away: HashMap<u16, Request>,
    slots: Vec<u64>,
}

impl Workload {
    fn new() -> Self {
        Workload {
            made: 0,
            away: HashMap::new(),
            slots: (0..DEPTH as u64).collect(),
        }
    }

    /// What write number `n` writes.
    fn data(n: u64) -> Vec<u8> {
        n.to_le_bytes().repeat(LEN as usize / 8)
    }

    /// Adds one request: a write, or now and then a read of a write that must be complete.
    fn submit(&mut self, driver: &mut Driver) {
        let slot = self.slots.pop().unwrap();
        let (header, status, data) = buffers(slot);
        let n = self.made;
        self.made += 1;
        let read = (n % 4 == 3)
            .then(|| n.checked_sub(PLACES / 2 + 1))
            .flatten();
        let place = read.unwrap_or(n) % PLACES;
        // Requests come back in any order: each slot has descriptors of its own.
        let head = 3 * slot as u16;
        let chain = if read.is_some() {
            put_header(driver, slot, VIRTIO_BLK_T_IN, place * LEN / 512);
            [r(header, 16), w(data, LEN as u32), w(status, 1)]
        } else {
            put_header(driver, slot, VIRTIO_BLK_T_OUT, place * LEN / 512);
            let bytes = Self::data(n);
            driver
                .memory
                .write_slice(&bytes, GuestAddress(data))
                .unwrap();
            [r(header, 16), r(data, LEN as u32), w(status, 1)]
        };
        driver.rings[0].add_at(&driver.memory, head, &chain);
        driver.rings[0].kick();
        let before = self.away.insert(head, Request { slot, read });
        assert!(before.is_none());
    }

    /// Takes back one request, if one is done.
    fn collect(&mut self, driver: &mut Driver) -> bool {
        let Some((head, len)) = driver.rings[0].poll_used(&driver.memory) else {
            return false;
        };
        let request = self.away.remove(&head);
        let request = request.unwrap_or_else(|| panic!("chain {head} came back twice"));
        let (_, status, data) = buffers(request.slot);
        let status: u8 = driver.memory.read_obj(GuestAddress(status)).unwrap();
        assert_eq!(status, 0, "{request:?}");
        if let Some(n) = request.read {
            let mut bytes = vec![0; LEN as usize];
            driver
                .memory
                .read_slice(&mut bytes, GuestAddress(data))
                .unwrap();
            assert!(bytes == Self::data(n), "write {n} is not what was read");
        }
        assert_eq!(len, request.read.map_or(1, |_| LEN as u32 + 1));
        self.slots.push(request.slot);
        true
    }

    /// Keeps the ring full until the backend is `dead`.
    fn run(&mut self, driver: &mut Driver, dead: &AtomicBool) {
        while !dead.load(Ordering::Acquire) {
            while !self.slots.is_empty() {
                self.submit(driver);
            }
            if !self.collect(driver) {
                std::thread::yield_now();
            }
        }
    }
}

/// Resumes with another backend where the last one was killed.
fn resume(driver: Driver, stream: UnixStream, record: &(VhostUserInflight, File)) -> Driver {
    let Driver { memory, rings, .. } = driver;
    let mut next = Driver::over(stream, 1, 0);
    next.memory = memory;
    next.rings = rings;
    let (place, file) = record;
    let fd = file.as_raw_fd();
    next.frontend.set_inflight_fd(place, fd).unwrap();
    next.set_mem_table();
    next.set_up_ring(0, next.rings[0].seen());
    next.frontend.set_vring_enable(0, true).unwrap();
    next
}

#[test]
fn killed_fifty_times_it_loses_nothing_and_repeats_nothing() {
    kill(&[]);
}

/// Nearly all requests are pending when it is killed.
#[test]
fn killed_with_requests_in_the_kernel_it_loses_nothing_and_repeats_nothing() {
    kill(&["--direct"]);
}

fn kill(options: &[&str]) {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    File::create(&image).unwrap().set_len(PLACES * LEN).unwrap();
    let socket = dir.path().join("socket");

    let (mut blk, stream) = Blk::start(&image, &socket, options);
    let mut driver = Driver::over(stream, 1, 0);
    let record = record(&mut driver);
    let fd = record.1.as_raw_fd();
    driver.frontend.set_inflight_fd(&record.0, fd).unwrap();
    driver.start();
    let mut work = Workload::new();
    let (mut kills, mut taken) = (0, 0);
    // Until it has been killed within a request, for without that nothing is shown.
    while kills < KILLS || taken == 0 {
        kills += 1;
        assert!(kills < 20 * KILLS, "it never died within a request");
        let moment = Duration::from_micros(random.below(5000));
        let dead = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Not a synchronisation: any moment will do.
                std::thread::sleep(moment);
                blk.kill();
                dead.store(true, Ordering::Release);
            });
            work.run(&mut driver, &dead);
        });
        // What it had used before it died the driver has already.
        while work.collect(&mut driver) {}
        let mut flags = vec![0; 16 + 16 * usize::from(QUEUE_SIZE)];
        record.1.read_exact_at(&mut flags, 0).unwrap();
        taken += flags[16..].chunks(16).filter(|entry| entry[0] == 1).count();
        let stream;
        (blk, stream) = Blk::start(&image, &socket, options);
        driver = resume(driver, stream, &record);
    }
    println!("{} requests, {taken} in flight at {kills} kills", work.made);
    let deadline = Instant::now() + DEADLINE;
    while !work.away.is_empty() {
        work.collect(&mut driver);
        assert!(Instant::now() < deadline, "{:?} are lost", work.away);
    }
    assert_eq!(driver.rings[0].seen(), work.made as u16);
    assert_eq!(
        driver.frontend.get_vring_base(0).unwrap(),
        work.made as u32 & 0xffff
    );
    check_image(&image, work.made);
}

/// Every place holds what the last write to it wrote.
fn check_image(image: &Path, made: u64) {
    let file = File::open(image).unwrap();
    let mut bytes = vec![0; LEN as usize];
    for place in 0..PLACES.min(made) {
        let writes = (0..made).rev().filter(|n| n % PLACES == place);
        let is_read = |n: &u64| n % 4 == 3 && *n > PLACES / 2;
        let Some(last) = writes.into_iter().find(|n| !is_read(n)) else {
            continue;
        };
        file.read_exact_at(&mut bytes, place * LEN).unwrap();
        assert!(bytes == Workload::data(last), "place {place}");
    }
}
