use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use vmm_sys_util::eventfd::EventFd;

use super::*;
use crate::page_log::GuestRam;
use crate::request::Request;
use crate::testing::readable;

const MEMORY: usize = 1 << 20;

struct Bench {
    file: File,
    memory: Arc<GuestRam>,
    event: EventFd,
    ring: Uring,
}

/// The byte at `i` of a file.
fn byte(i: u64) -> u8 {
    (i / 7 + i / 512) as u8
}

impl Bench {
    fn new(len: u64) -> Self {
        let file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..len).map(byte).collect();
        file.write_all_at(&bytes, 0).unwrap();
        file.sync_all().unwrap();
        let event = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let ring = Uring::new(&file, event.as_raw_fd()).unwrap();
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap();
        Bench {
            file,
            memory: Arc::new(memory),
            event,
            ring,
        }
    }

    /// A request of `count` pieces of `len` bytes each from guest address `at` on, the last first.
    fn request(&self, at: u64, count: u64, len: u32, writable: bool) -> Request {
        let mut request = Request::new(Arc::clone(&self.memory));
        let flags = |i| u16::from(i > 0) | u16::from(writable) << 1;
        let pieces = (0..count)
            .rev()
            .map(|i| Descriptor::new(at + i * u64::from(len), len, flags(i), 0));
        request.chain.refill(pieces, 1024).unwrap();
        let all = count * u64::from(len);
        match writable {
            true => request.describe_writable(0, all).unwrap(),
            false => request.describe_readable(0, all).unwrap(),
        }
        request
    }

    /// Waits until `count` requests are finished.
    fn finish(&mut self, count: usize) -> Vec<Done> {
        let mut all = Vec::new();
        loop {
            self.ring.poll(|done| all.push(done)).unwrap();
            if all.len() >= count {
                return all;
            }
            assert!(readable(self.event.as_raw_fd()), "{} of {count}", all.len());
            self.event.read().unwrap();
        }
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }
}

fn start(bench: &mut Bench, request: Request, kind: Kind, offset: u64) {
    bench.ring.start(Job::new(request, kind, offset));
}

#[test]
fn more_than_the_queue_holds_is_in_flight_at_once() {
    const COUNT: u64 = 3 * ENTRIES as u64;
    let mut bench = Bench::new(COUNT * 512);
    for i in 0..COUNT {
        let request = bench.request(1024 * i, 1, 512, true);
        start(&mut bench, request, Kind::Read, 512 * i);
    }
    let all = bench.finish(COUNT as usize);
    assert!(all.into_iter().all(|done| done.result.is_ok()));
    assert!(bench.ring.is_idle());
    for i in 0..COUNT {
        let expected: Vec<u8> = (512 * i..512 * (i + 1)).map(byte).collect();
        assert_eq!(bench.get(1024 * i, 512), expected, "request {i}");
    }
}

/// A request whose room describes `pieces` buffers of 3 bytes from 0x100 on: more than a chain may
/// have descriptors, as memory in many regions makes them.
fn scattered(bench: &Bench, pieces: u64) -> Request {
    let mut request = Request::new(Arc::clone(&bench.memory));
    let mut iovecs = request.room.start();
    for i in 0..pieces {
        let at = GuestAddress(0x100 + 3 * i);
        let mut slices = bench.memory.get_slices(at, 3, Permissions::Read).unwrap();
        iovecs.push(&slices.next().unwrap().unwrap());
    }
    request
}

#[test]
fn a_request_of_many_buffers_takes_several_steps() {
    let mut bench = Bench::new(0);
    let pieces = 2 * MAX_PER_CALL as u64 + 1;
    let bytes: Vec<u8> = (0..3 * pieces).map(byte).collect();
    let memory = &bench.memory;
    memory.write_slice(&bytes, GuestAddress(0x100)).unwrap();
    for (offset, durable) in [(5, false), (50_000, true)] {
        let request = scattered(&bench, pieces);
        start(&mut bench, request, Kind::Write { durable }, offset);
        bench.finish(1).pop().unwrap().result.unwrap();
        let mut written = vec![0; bytes.len()];
        bench.file.read_exact_at(&mut written, offset).unwrap();
        assert_eq!(written, bytes);
    }
}

#[test]
fn a_file_that_ends_too_early_is_an_error() {
    let mut bench = Bench::new(700);
    let short = bench.request(0, 2, 512, true);
    start(&mut bench, short, Kind::Read, 0);
    let error = bench.finish(1).pop().unwrap().result.unwrap_err();
    assert!(
        matches!(&error, super::super::request::RequestError::Io(e)
            if e.kind() == io::ErrorKind::UnexpectedEof),
        "{error}"
    );
}

#[test]
fn what_is_in_flight_when_the_ring_goes_keeps_its_memory() {
    let mut bench = Bench::new(4096);
    let request = bench.request(0, 1, 4096, true);
    start(&mut bench, request, Kind::Read, 0);
    let holders = Arc::strong_count(&bench.memory);
    drop(bench.ring);
    assert_eq!(Arc::strong_count(&bench.memory), holders);
}
