//! `outboard-blk`'s device behind a real socket, driven by a frontend that is not ours.

#![allow(unsafe_code)]

mod common;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command};

use backends::blk::backend::BlkDevice;
use backends::blk::full::Enospc;
use backends::blk::image::{Image, Options};
use backends::blk::queue::Engine;
use backends::blk::request::Disk;
use common::requests::Requests;
use common::{BUFFERS, Desc, Driver, Server, r, w};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserInflight};
use vhost::{VhostBackend, VhostUserDirtyLogRegion};
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES,
};
use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vm_memory::{Bytes, GuestAddress};

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;
const SECTORS: u64 = 2048;

/// A block daemon on a scratch image.
fn serve(queues: u16) -> Server {
    serve_by(Engine::probe(), queues)
}

/// The same, where what takes time is done by `engine`.
fn serve_by(engine: Engine, queues: u16) -> Server {
    serve_with(engine, queues, Options::default())
}

fn serve_with(engine: Engine, queues: u16, options: Options) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.img");
    let file = File::create(&path).unwrap();
    file.set_len(SECTORS * 512).unwrap();
    let disk = Disk::new(Image::open_with(&path, options).unwrap(), "serial-0");
    Server::start_device(
        dir,
        BlkDevice::with_engine(disk, queues, Enospc::Wait, engine).unwrap(),
    )
}

fn image(server: &Server) -> File {
    File::open(server.dir.path().join("disk.img")).unwrap()
}

fn put_header(driver: &Driver, kind: u32, sector: u64) {
    let memory = &driver.memory;
    memory.write_obj(kind, GuestAddress(HEADER)).unwrap();
    memory.write_obj(0u32, GuestAddress(HEADER + 4)).unwrap();
    memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    memory.write_obj(0xffu8, GuestAddress(STATUS)).unwrap();
}

/// Runs one request on ring 0; returns status and used length.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[Desc]) -> (u8, u32) {
    put_header(driver, kind, sector);
    let mut descs = vec![r(HEADER, 16)];
    descs.extend_from_slice(data);
    descs.push(w(STATUS, 1));
    let used = driver.run(0, &descs);
    (driver.memory.read_obj(GuestAddress(STATUS)).unwrap(), used)
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| seed.wrapping_add((i * 7 + i / 256) as u8))
        .collect()
}

#[test]
fn what_is_written_is_read_back_and_is_in_the_file() {
    for engine in [Engine::Uring, Engine::Threads] {
        write_and_read_back(&serve_by(engine, 1));
    }
}

fn write_and_read_back(server: &Server) {
    for without in [0, 1 << VIRTIO_RING_F_EVENT_IDX] {
        let mut driver = Driver::connect(&server.socket(), 1, without);
        driver.start();
        let data = pattern(without as u8, 8192);
        driver
            .memory
            .write_slice(&data, GuestAddress(DATA))
            .unwrap();
        let written = request(&mut driver, VIRTIO_BLK_T_OUT, 5, &[r(DATA, 8192)]);
        assert_eq!(written, (0, 1));
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]), (0, 1));
        let mut on_disk = vec![0; 8192];
        image(server).read_exact_at(&mut on_disk, 5 * 512).unwrap();
        assert_eq!(on_disk, data);

        let to = DATA + 0x10000;
        let read = request(
            &mut driver,
            VIRTIO_BLK_T_IN,
            5,
            &[w(to, 512), w(to + 512, 7680)],
        );
        assert_eq!(read, (0, 8193));
        let mut got = vec![0; 8192];
        driver
            .memory
            .read_slice(&mut got, GuestAddress(to))
            .unwrap();
        assert_eq!(got, data);
    }
}

/// The pages that a log's file says were written.
fn logged(log: &File) -> Vec<u64> {
    let mut bytes = vec![0; log.metadata().unwrap().len() as usize];
    log.read_exact_at(&mut bytes, 0).unwrap();
    let is_set = |page: &u64| bytes[(page / 8) as usize] >> (page % 8) & 1 != 0;
    (0..8 * bytes.len() as u64).filter(is_set).collect()
}

#[test]
fn the_pages_that_a_request_fills_are_logged_and_no_others() {
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    let log = common::memfd(common::MEMORY_SIZE as u64 / 4096 / 8);
    let region = VhostUserDirtyLogRegion {
        mmap_size: log.metadata().unwrap().len(),
        mmap_offset: 0,
        mmap_handle: log.as_raw_fd(),
    };
    driver.frontend.set_log_base(0, Some(region)).unwrap();
    let written = request(&mut driver, VIRTIO_BLK_T_OUT, 0, &[r(DATA, 8192)]);
    assert_eq!(written, (0, 1));
    let rings = [1, 2, 3].map(|part| driver.rings[0].base / 4096 + part - 1);
    let (used, status) = (rings[2], STATUS / 4096);
    // The device's wish for kicks lies behind the used ring's elements, in the same page.
    assert_eq!(logged(&log), [used, status]);
    let read = request(
        &mut driver,
        VIRTIO_BLK_T_IN,
        0,
        &[w(DATA + 0xfff, 513), w(DATA + 0x5000, 511)],
    );
    assert_eq!(read, (0, 1025));
    let data = [0, 1, 5].map(|page| DATA / 4096 + page);
    assert_eq!(logged(&log), [&[used, status][..], &data].concat());
}

#[test]
fn many_requests_in_flight_all_complete() {
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    for round in 0..50u64 {
        for i in 0..16 {
            let at = BUFFERS + 0x2000 * i;
            let memory = &driver.memory;
            memory
                .write_obj(VIRTIO_BLK_T_OUT, GuestAddress(at))
                .unwrap();
            memory
                .write_obj(round * 16 + i, GuestAddress(at + 8))
                .unwrap();
            memory.write_obj(0xffu8, GuestAddress(at + 16)).unwrap();
            memory
                .write_slice(&pattern((round + i) as u8, 512), GuestAddress(at + 0x1000))
                .unwrap();
            driver.rings[0].add(memory, &[r(at, 16), r(at + 0x1000, 512), w(at + 16, 1)]);
        }
        driver.rings[0].kick();
        for _ in 0..16 {
            let (_, len) = driver.rings[0].wait_used(&driver.memory);
            assert_eq!(len, 1);
        }
        for i in 0..16 {
            let status: u8 = driver
                .memory
                .read_obj(GuestAddress(BUFFERS + 0x2000 * i + 16))
                .unwrap();
            assert_eq!(status, 0);
        }
    }
    let mut sector = [0; 512];
    for n in 0..800u64 {
        image(&server).read_exact_at(&mut sector, n * 512).unwrap();
        assert_eq!(sector[..], pattern((n / 16 + n % 16) as u8, 512)[..]);
    }
}

/// Has nothing of the image in the page cache.
fn evict(server: &Server) {
    let file = image(server);
    file.sync_all().unwrap();
    // SAFETY: takes no pointer; the descriptor is open.
    let error = unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    assert_eq!(error, 0);
}

/// Request `i` of many: its header, status and data.
fn buffers(i: u64) -> (u64, u64, u64) {
    let at = BUFFERS + 0x3000 * i;
    (at, at + 16, at + 0x1000)
}

/// Makes request `i` available, without a kick.
fn add(driver: &mut Driver, i: u64, kind: u32, sector: u64, data: &[Desc]) {
    let (header, status, _) = buffers(i);
    let memory = &driver.memory;
    memory.write_obj(kind, GuestAddress(header)).unwrap();
    memory.write_obj(sector, GuestAddress(header + 8)).unwrap();
    memory.write_obj(0xffu8, GuestAddress(status)).unwrap();
    let chain = [&[r(header, 16)], data, &[w(status, 1)]].concat();
    driver.rings[0].add(memory, &chain);
}

/// Waits for `count` requests, of which each is to succeed.
fn complete(driver: &mut Driver, count: u64) {
    driver.rings[0].kick();
    for _ in 0..count {
        driver.rings[0].wait_used(&driver.memory);
    }
    for i in 0..count {
        let status: u8 = driver.memory.read_obj(GuestAddress(buffers(i).1)).unwrap();
        assert_eq!(status, 0, "request {i}");
    }
}

/// Sixteen at a time, which are not in the page cache, with a flush and zeroes between them.
fn read_evicted(server: &Server) {
    const COUNT: u64 = 16;
    let bytes = pattern(3, 512 * SECTORS as usize);
    let path = server.dir.path().join("disk.img");
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    for round in 0..4 {
        evict(server);
        let sector = |i| (i * 7 + round) * 16;
        for i in 2..COUNT {
            let data = w(buffers(i).2, 8192);
            add(&mut driver, i, VIRTIO_BLK_T_IN, sector(i), &[data]);
        }
        add(&mut driver, 0, VIRTIO_BLK_T_FLUSH, 0, &[]);
        let range = [SECTORS - 8 * (round + 1), 8];
        let (_, _, data) = buffers(1);
        for (at, word) in (data..).step_by(8).zip(range) {
            driver.memory.write_obj(word, GuestAddress(at)).unwrap();
        }
        add(&mut driver, 1, VIRTIO_BLK_T_WRITE_ZEROES, 0, &[r(data, 16)]);
        complete(&mut driver, COUNT);
        for i in 2..COUNT {
            let mut got = vec![0; 8192];
            let at = GuestAddress(buffers(i).2);
            driver.memory.read_slice(&mut got, at).unwrap();
            let start = 512 * sector(i) as usize;
            assert!(
                got == bytes[start..start + 8192],
                "request {i} in round {round}"
            );
        }
    }
    let mut end = vec![1; 4 * 8 * 512];
    let at = 512 * SECTORS - end.len() as u64;
    image(server).read_exact_at(&mut end, at).unwrap();
    assert!(end.iter().all(|byte| *byte == 0));
}

#[test]
fn what_is_not_in_the_page_cache_is_read_right_by_the_kernel_and_by_threads() {
    for engine in [Engine::Uring, Engine::Threads] {
        read_evicted(&serve_by(engine, 1));
    }
}

/// Buffers that the kernel does not take are copied, in several pieces if they are long.
#[test]
fn past_the_page_cache_buffers_may_be_anywhere() {
    const LEN: u32 = 640 << 10;
    for engine in [Engine::Uring, Engine::Threads] {
        let options = Options {
            direct: true,
            ..Options::default()
        };
        let server = serve_with(engine, 1, options);
        write_and_read_back(&server);
        let mut driver = Driver::connect(&server.socket(), 1, 0);
        driver.start();
        for (from, to) in [(DATA + 512, DATA + 0x10_0200), (DATA + 3, DATA + 0x10_0801)] {
            let data = pattern(from as u8, LEN as usize);
            driver
                .memory
                .write_slice(&data, GuestAddress(from))
                .unwrap();
            let halves = |at: u64| [(at, 1001), (at + 1001, LEN - 1001)];
            let written = halves(from).map(|(at, len)| r(at, len));
            let status = request(&mut driver, VIRTIO_BLK_T_OUT, 8, &written);
            assert_eq!(status, (0, 1), "{engine:?}");
            let read = halves(to).map(|(at, len)| w(at, len));
            let status = request(&mut driver, VIRTIO_BLK_T_IN, 8, &read);
            assert_eq!(status, (0, LEN + 1), "{engine:?}");
            let mut got = vec![0; LEN as usize];
            driver
                .memory
                .read_slice(&mut got, GuestAddress(to))
                .unwrap();
            assert!(got == data, "{engine:?}");
            let mut on_disk = vec![0; LEN as usize];
            image(&server).read_exact_at(&mut on_disk, 8 * 512).unwrap();
            assert!(on_disk == data, "{engine:?}");
        }
    }
}

#[test]
fn get_vring_base_says_where_to_go_on_and_a_new_session_does() {
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.start();
    for i in 0..5 {
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, i, &[]).0, 0);
    }
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 5);

    // Stopped: a kick is not answered any longer.
    put_header(&driver, VIRTIO_BLK_T_FLUSH, 0);
    driver.rings[0].add(&driver.memory, &[r(HEADER, 16), w(STATUS, 1)]);
    driver.rings[0].kick();
    assert_eq!(driver.frontend.get_vring_base(0).unwrap(), 5);
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);

    // Another connection over the same memory takes up where the first one stood, and finds the
    // request that was left.
    let Driver {
        memory,
        rings,
        frontend,
        ..
    } = driver;
    drop(frontend);
    let mut next = Driver::connect(&server.socket(), 1, 0);
    next.memory = memory;
    next.rings = rings;
    next.set_mem_table();
    next.set_up_ring(0, 5);
    next.frontend.set_vring_enable(0, true).unwrap();
    let (_, len) = next.rings[0].wait_used(&next.memory);
    assert_eq!(len, 1);
    assert_eq!(request(&mut next, VIRTIO_BLK_T_FLUSH, 0, &[]).0, 0);
    assert_eq!(next.frontend.get_vring_base(0).unwrap(), 7);
}

#[test]
fn a_kick_before_the_ring_is_enabled_is_not_lost() {
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    driver.set_mem_table();
    driver.set_up_ring(0, 0);
    put_header(&driver, VIRTIO_BLK_T_FLUSH, 0);
    driver.rings[0].add(&driver.memory, &[r(HEADER, 16), w(STATUS, 1)]);
    driver.rings[0].kick();
    // A request that is answered proves that the daemon has had its chance to be wrong.
    driver.frontend.get_features().unwrap();
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);
    driver.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(driver.rings[0].wait_used(&driver.memory).1, 1);
    // Disabled and enabled again, it resumes where it was.
    driver.frontend.set_vring_enable(0, false).unwrap();
    driver.rings[0].add(&driver.memory, &[r(HEADER, 16), w(STATUS, 1)]);
    driver.rings[0].kick();
    driver.frontend.get_features().unwrap();
    assert_eq!(driver.rings[0].poll_used(&driver.memory), None);
    driver.frontend.set_vring_enable(0, true).unwrap();
    assert_eq!(driver.rings[0].wait_used(&driver.memory).1, 1);
}

#[test]
fn every_queue_works_and_the_configuration_space_says_how_many() {
    let server = serve(4);
    let mut driver = Driver::connect(&server.socket(), 4, 0);
    assert_eq!(driver.frontend.get_queue_num().unwrap(), 4);
    let (_, config) = driver
        .frontend
        .get_config(0, 60, VhostUserConfigFlags::empty(), &[0; 60])
        .unwrap();
    assert_eq!(config[0..8], SECTORS.to_le_bytes());
    assert_eq!(config[34..36], 4u16.to_le_bytes());
    // A frontend that knows more fields than the device reads zeroes.
    let (_, config) = driver
        .frontend
        .get_config(56, 40, VhostUserConfigFlags::empty(), &[0; 40])
        .unwrap();
    assert_eq!(config[0], 1);
    assert_eq!(config[4..], [0; 36]);
    driver.start();
    for i in 0..4 {
        put_header(&driver, VIRTIO_BLK_T_GET_ID, 0);
        let used = driver.run(i, &[r(HEADER, 16), w(DATA, 20), w(STATUS, 1)]);
        assert_eq!(used, 21);
        let id: [u8; 20] = driver.memory.read_obj(GuestAddress(DATA)).unwrap();
        assert_eq!(&id[..9], b"serial-0\0");
    }
}

/// The cache's mode: `writeback` in the configuration space.
fn mode(driver: &mut Driver) -> u8 {
    let flags = VhostUserConfigFlags::empty();
    driver.frontend.get_config(32, 1, flags, &[0]).unwrap().1[0]
}

#[test]
fn the_driver_sets_the_mode_of_the_cache_and_it_is_in_the_record_for_the_next_process() {
    let flags = VhostUserConfigFlags::WRITABLE;
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    assert_eq!(mode(&mut driver), 1);
    // Before there is a record, as a driver may.
    driver.frontend.set_config(32, flags, &[0]).unwrap();
    let want = VhostUserInflight::new(0, 0, 1, common::QUEUE_SIZE);
    let (place, file) = driver.frontend.get_inflight_fd(&want).unwrap();
    let fd = file.as_raw_fd();
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    driver.start();
    let written = request(&mut driver, VIRTIO_BLK_T_OUT, 0, &[r(DATA, 512)]);
    assert_eq!((written, mode(&mut driver)), ((0, 1), 0));
    drop((driver, server));

    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    assert_eq!(mode(&mut driver), 1);
    driver.frontend.set_inflight_fd(&place, fd).unwrap();
    assert_eq!(mode(&mut driver), 0);
    driver.frontend.set_config(32, flags, &[1]).unwrap();
    assert_eq!(mode(&mut driver), 1);
    // The next driver begins where all do.
    driver.frontend.set_config(32, flags, &[0]).unwrap();
    driver.frontend.reset_device().unwrap();
    assert_eq!(mode(&mut driver), 1);
}

#[test]
fn a_hundred_sessions_leave_no_descriptor_and_no_memory_behind() {
    let server = serve(2);
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut after_first = 0;
    for i in 0..100 {
        let mut driver = Driver::connect(&server.socket(), 2, 0);
        driver.start();
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_FLUSH, 0, &[]).0, 0);
        if i % 2 == 0 {
            // Left in the middle of a request.
            put_header(&driver, VIRTIO_BLK_T_IN, 0);
            driver.rings[0].add(&driver.memory, &[r(HEADER, 16), w(DATA, 512), w(STATUS, 1)]);
            driver.rings[0].kick();
        }
        drop(driver);
        // Accepted means that the session before has been cleaned up.
        drop(Driver::connect(&server.socket(), 2, 0));
        if i == 10 {
            after_first = open();
        }
    }
    drop(Driver::connect(&server.socket(), 2, 0));
    // Other tests of this process come and go meanwhile; a leak would be of hundreds.
    assert!(
        open() < after_first + 90,
        "{} then, {} now",
        after_first,
        open()
    );
}

/// qemu-img, which knows the format better than anybody.
fn qemu_img(args: &[&str], dir: &Path) -> String {
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(dir)
        .output()
        .expect("qemu-img; `make setup` installs it");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "qemu-img {args:?}: {text}{output:?}"
    );
    text
}

/// A process that ends with its test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The capacity, in sectors.
fn capacity(driver: &mut Driver) -> u64 {
    let flags = VhostUserConfigFlags::empty();
    let config = driver.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
    u64::from_le_bytes(config.1.try_into().unwrap())
}

#[test]
fn the_driver_hears_of_an_image_that_grows_and_of_one_that_shrinks() {
    let server = serve(1);
    let mut driver = Driver::connect(&server.socket(), 1, 0);
    let mut requests = Requests::of(&mut driver);
    driver.start();
    let file = File::options()
        .write(true)
        .open(server.dir.path().join("disk.img"))
        .unwrap();
    for sectors in [2 * SECTORS, SECTORS / 2] {
        file.set_len(sectors * 512).unwrap();
        requests.expect_config_change();
        assert_eq!(capacity(&mut driver), sectors);
        let read = |driver: &mut Driver, sector| {
            request(driver, VIRTIO_BLK_T_IN, sector, &[w(DATA, 512)]).0
        };
        assert_eq!(read(&mut driver, sectors - 1), 0);
        assert_ne!(read(&mut driver, sectors), 0);
    }
}

#[test]
fn a_qcow2_image_with_a_backing_file_survives_its_server() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let base: Vec<u8> = (0..1u32 << 20).map(|i| (i >> 9) as u8).collect();
    std::fs::write(at("base"), &base).unwrap();
    let create = [
        "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "disk", "2M",
    ];
    qemu_img(&create, dir.path());
    let mut program = Command::new(env!("CARGO_BIN_EXE_outboard-blk"));
    program.args(["--socket", "socket", "--path", "disk", "--format", "qcow2"]);
    program.arg("--backing-files");
    let mut child = Killed(program.current_dir(&dir).spawn().unwrap());
    let mut driver = common::connect_within(common::DEADLINE, &at("socket"), 1);
    driver.start();
    // 2 MiB: the backing file is shorter than the disk.
    let flags = VhostUserConfigFlags::empty();
    let config = driver.frontend.get_config(0, 8, flags, &[0; 8]).unwrap();
    assert_eq!(config.1, 4096u64.to_le_bytes());
    let mut expected = base.clone();
    expected.resize(2 << 20, 0);
    // Within a cluster, across clusters, beyond the backing file.
    for (i, (sector, bytes)) in [(3u64, 1024usize), (120, 100 << 10), (4000, 512)]
        .iter()
        .enumerate()
    {
        let data = vec![0xa0 + i as u8; *bytes];
        driver
            .memory
            .write_slice(&data, GuestAddress(DATA))
            .unwrap();
        let pieces = [r(DATA, 512), r(DATA + 512, *bytes as u32 - 512)];
        let pieces = if *bytes > 512 {
            &pieces[..]
        } else {
            &pieces[..1]
        };
        assert_eq!(request(&mut driver, VIRTIO_BLK_T_OUT, *sector, pieces).0, 0);
        let offset = *sector as usize * 512;
        expected[offset..offset + bytes].copy_from_slice(&data);
    }
    assert_eq!(
        request(&mut driver, VIRTIO_BLK_T_IN, 0, &[w(DATA, 2 << 20)]).0,
        0
    );
    let mut got = vec![0; 2 << 20];
    driver
        .memory
        .read_slice(&mut got, GuestAddress(DATA))
        .unwrap();
    assert!(got == expected, "what was written and what is behind it");
    assert_ne!(
        request(&mut driver, VIRTIO_BLK_T_IN, 4095, &[w(DATA, 1024)]).0,
        0
    );
    // No flush: what was completed is in the image all the same.
    child.kill();
    let found = qemu_img(&["check", "disk"], dir.path());
    assert!(found.contains("No errors were found"), "{found}");
    qemu_img(&["convert", "-O", "raw", "disk", "raw"], dir.path());
    assert!(std::fs::read(at("raw")).unwrap() == expected);
    assert!(std::fs::read(at("base")).unwrap() == base);
    // A raw image is no qcow2 image.
    let refused = Command::new(env!("CARGO_BIN_EXE_outboard-blk"))
        .args(["--socket", "s", "--path", "base", "--format", "qcow2"])
        .current_dir(&dir)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("base cannot be used as qcow2"), "{text}");
}
