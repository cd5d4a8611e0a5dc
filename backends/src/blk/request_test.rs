use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use virtio_bindings::virtio_blk::{VIRTIO_BLK_F_CONFIG_WCE, VIRTIO_BLK_F_FLUSH};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::*;
use crate::blk::cache::WRITEBACK;

const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const SECTORS: u64 = 16;
const AVAIL: u64 = 0x8000;
const HEADER: u64 = 0x1_0000;
const DATA: u64 = 0x2_0000;
const STATUS: u64 = 0x3_0000;
const END: u64 = 0x10_0000;

/// A disk whose byte at `i` is `i / 512 + 1`, and memory for requests.
struct Bench {
    file: tempfile::NamedTempFile,
    disk: Disk,
    memory: GuestMemoryMmap,
    features: u64,
    error: Option<String>,
}

impl Bench {
    fn open(read_only: bool) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        let bytes: Vec<u8> = (0..SECTORS * 512).map(|i| (i / 512 + 1) as u8).collect();
        file.as_file().write_all_at(&bytes, 0).unwrap();
        Bench {
            disk: Disk::new(Image::open(file.path(), read_only).unwrap(), "a-serial"),
            file,
            memory: GuestMemoryMmap::from_ranges(&[(GuestAddress(0), END as usize)]).unwrap(),
            features: 1 << VIRTIO_BLK_F_FLUSH,
            error: None,
        }
    }

    fn new() -> Self {
        Bench::open(false)
    }

    fn header(&self, kind: u32, sector: u64) {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[8..].copy_from_slice(&sector.to_le_bytes());
        self.put(HEADER, &bytes);
        self.put(STATUS, &[0xee]);
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    /// A chain of (address, length, writable).
    fn chain(&self, parts: &[(u64, u32, bool)]) -> Chain {
        let mut queue = Queue::new(64).unwrap();
        for (i, &(addr, len, writable)) in parts.iter().enumerate() {
            let next = u16::from(i + 1 < parts.len());
            let flags = next | u16::from(writable) << 1;
            let descriptor = Descriptor::new(addr, len, flags, i as u16 + 1);
            self.memory
                .write_obj(RawDescriptor::from(descriptor), GuestAddress(16 * i as u64))
                .unwrap();
        }
        self.put(AVAIL, &[0, 0, 1, 0, 0, 0]);
        queue
            .try_set_avail_ring_address(GuestAddress(AVAIL))
            .unwrap();
        queue.set_ready(true);
        let descriptors = queue.iter(&self.memory).unwrap().next().unwrap();
        let mut chain = Chain::default();
        chain.refill(descriptors, 1024).unwrap();
        chain
    }

    /// Runs it.
    fn run(&mut self, parts: &[(u64, u32, bool)]) -> Result<u32, NoStatus> {
        let chain = self.chain(parts);
        let mut room = IoVecBuf::default();
        let (disk, memory) = (&self.disk, &self.memory);
        let result = disk
            .parse(memory, &chain, self.features)
            .and_then(|command| disk.execute(&command, memory, &chain, &mut room));
        let answered = disk.answer(memory, &chain, result)?;
        self.error = answered.error.map(|e| format!("{e:?}"));
        Ok(answered.used)
    }

    /// Runs header, data and status in a descriptor each; status and used length.
    fn request(&mut self, kind: u32, sector: u64, data: &[(u64, u32, bool)]) -> (u8, u32) {
        self.header(kind, sector);
        let mut parts = vec![(HEADER, 16, false)];
        parts.extend_from_slice(data);
        parts.push((STATUS, 1, true));
        let used = self.run(&parts).unwrap();
        (self.get(STATUS, 1)[0], used)
    }

    fn on_disk(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file
            .as_file()
            .read_exact_at(&mut bytes, offset)
            .unwrap();
        bytes
    }
}

fn read(len: u32) -> (u64, u32, bool) {
    (DATA, len, true)
}

fn write(len: u32) -> (u64, u32, bool) {
    (DATA, len, false)
}

#[test]
fn reads_and_writes_reach_the_sector_they_name() {
    let mut bench = Bench::new();
    assert_eq!(bench.request(IN, 3, &[read(1024)]), (OK, 1025));
    assert_eq!(bench.get(DATA, 512), [4; 512]);
    assert_eq!(bench.get(DATA + 512, 512), [5; 512]);
    bench.put(DATA, &[0xaa; 512]);
    for features in [0, 1 << VIRTIO_BLK_F_FLUSH] {
        bench.features = features;
        assert_eq!(bench.request(OUT, 15, &[write(512)]), (OK, 1));
        assert_eq!(bench.on_disk(15 * 512, 512), [0xaa; 512]);
    }
    assert_eq!(bench.on_disk(14 * 512, 512), [15; 512]);
    assert_eq!(bench.request(FLUSH, 0, &[]), (OK, 1));
    // No data at all is a multiple of a sector too.
    assert_eq!(bench.request(IN, 16, &[]), (OK, 1));
}

#[test]
fn the_drivers_cache_mode_says_whether_a_write_is_durable() {
    let mut bench = Bench::new();
    bench.features = 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_CONFIG_WCE;
    for (mode, expected) in [(1, false), (0, true)] {
        bench.disk.cache().write(WRITEBACK, &[mode]).unwrap();
        bench.header(OUT, 0);
        let chain = bench.chain(&[(HEADER, 16, false), (DATA, 512, false), (STATUS, 1, true)]);
        let command = bench.disk.parse(&bench.memory, &chain, bench.features);
        let Ok(Command::Write { durable, .. }) = command else {
            panic!("{command:?}");
        };
        assert_eq!(durable, expected, "writeback {mode}");
    }
}

#[test]
fn framing_means_nothing() {
    let mut bench = Bench::new();
    // The header in three, data in odd pieces, the status behind data in one descriptor.
    bench.header(IN, 7);
    let used = bench.run(&[
        (HEADER, 3, false),
        (HEADER + 3, 12, false),
        (HEADER + 15, 1, false),
        (DATA, 1, true),
        (DATA + 0x1000, 500, true),
        (DATA + 0x2000, 12, true),
    ]);
    assert_eq!(used.unwrap(), 513);
    assert_eq!(bench.get(DATA, 1), [8]);
    assert_eq!(bench.get(DATA + 0x1000, 500), [8; 500]);
    assert_eq!(
        bench.get(DATA + 0x2000, 12),
        [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, OK]
    );
    // Header and data to write in one.
    bench.header(OUT, 2);
    bench.put(HEADER + 16, &[0x77; 512]);
    assert_eq!(
        bench
            .run(&[(HEADER, 528, false), (STATUS, 1, true)])
            .unwrap(),
        1
    );
    assert_eq!(bench.get(STATUS, 1), [OK]);
    assert_eq!(bench.on_disk(1024, 512), [0x77; 512]);
}

#[test]
fn what_lies_beyond_the_end_is_an_error() {
    let mut bench = Bench::new();
    for (sector, len) in [(16, 512), (15, 1024), (u64::MAX, 512), (u64::MAX >> 9, 512)] {
        bench.put(DATA, &[0xcc; 1024]);
        assert_eq!(bench.request(OUT, sector, &[write(len)]), (IOERR, 1));
        // A failed read leaves zeroes: the used length covers them.
        assert_eq!(bench.request(IN, sector, &[read(len)]), (IOERR, len + 1));
        assert_eq!(bench.get(DATA, len as usize), vec![0; len as usize]);
        assert!(bench.error.as_ref().unwrap().starts_with("OutOfRange"));
    }
    assert_eq!(bench.on_disk(15 * 512, 512), [16; 512]);
}

#[test]
fn odd_lengths_and_wrong_directions_are_errors() {
    let mut bench = Bench::new();
    for len in [1, 511, 513] {
        assert_eq!(bench.request(IN, 0, &[read(len)]), (IOERR, len + 1));
        assert_eq!(bench.request(OUT, 0, &[write(len)]), (IOERR, 1));
    }
    assert_eq!(bench.request(IN, 0, &[write(512)]), (IOERR, 1));
    assert_eq!(bench.request(OUT, 0, &[read(512)]), (IOERR, 513));
    assert_eq!(bench.on_disk(0, 512), [1; 512]);
    // No header, or a part of one.
    bench.header(IN, 0);
    assert_eq!(bench.run(&[(STATUS, 1, true)]).unwrap(), 1);
    assert_eq!(bench.get(STATUS, 1), [IOERR]);
    assert_eq!(
        bench
            .run(&[(HEADER, 15, false), (STATUS, 1, true)])
            .unwrap(),
        1
    );
    assert_eq!(bench.get(STATUS, 1), [IOERR]);
}

#[test]
fn buffers_outside_memory_are_errors_and_a_status_outside_drops_the_chain() {
    let mut bench = Bench::new();
    for at in [END - 256, END, u64::MAX - 511] {
        assert_eq!(bench.request(IN, 0, &[(at, 512, true)]).0, IOERR);
        assert_eq!(bench.request(OUT, 0, &[(at, 512, false)]).0, IOERR);
        bench.header(IN, 0);
        assert!(
            bench
                .run(&[(HEADER, 16, false), (at + 256, 1, true)])
                .is_err()
        );
        bench.run(&[(at, 16, false), (STATUS, 1, true)]).ok();
    }
    assert!(bench.run(&[(HEADER, 16, false)]).is_err(), "no status byte");
    assert_eq!(bench.on_disk(0, 512), [1; 512]);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let mut bench = Bench::open(true);
    bench.put(DATA, &[0; 512]);
    assert_eq!(bench.request(OUT, 0, &[write(512)]), (IOERR, 1));
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(bench.request(kind, 0, &[write(16)]), (IOERR, 1));
    }
    assert_eq!(bench.error.as_deref(), Some("ReadOnly"));
    assert_eq!(bench.request(IN, 0, &[read(512)]), (OK, 513));
    assert_eq!(bench.request(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(bench.on_disk(0, 512), [1; 512]);
}

#[test]
fn the_serial_number_fills_what_room_there_is() {
    let mut bench = Bench::new();
    assert_eq!(bench.request(GET_ID, 0, &[read(20)]), (OK, 21));
    assert_eq!(bench.get(DATA, 20), b"a-serial\0\0\0\0\0\0\0\0\0\0\0\0");
    assert_eq!(bench.request(GET_ID, 0, &[read(4)]), (OK, 5));
    bench.put(DATA, &[0xff; 32]);
    assert_eq!(bench.request(GET_ID, 0, &[read(32)]), (OK, 33));
    assert_eq!(bench.get(DATA + 20, 12), [0; 12]);
}

#[test]
fn unknown_types_are_unsupported() {
    let mut bench = Bench::new();
    // SECURE_ERASE and GET_LIFETIME are not offered; the others do not exist.
    for kind in [2, 10, 14, 99, u32::MAX, 1 << 31] {
        assert_eq!(bench.request(kind, 0, &[read(512)]), (UNSUPP, 513));
    }
}

fn ranges(list: &[(u64, u32, u32)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (sector, count, flags) in list {
        bytes.extend_from_slice(&sector.to_le_bytes());
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
    }
    bytes
}

#[test]
fn ranges_are_zeroed_or_discarded() {
    let mut bench = Bench::new();
    bench.put(DATA, &ranges(&[(1, 2, 0), (8, 1, 1)]));
    assert_eq!(bench.request(WRITE_ZEROES, 0, &[write(32)]), (OK, 1));
    assert_eq!(bench.on_disk(512, 1024), [0; 1024]);
    assert_eq!(bench.on_disk(8 * 512, 512), [0; 512]);
    assert_eq!(bench.on_disk(0, 512), [1; 512]);
    assert_eq!(bench.on_disk(9 * 512, 512), [10; 512]);
    // The ranges may be cut anywhere.
    bench.put(DATA, &ranges(&[(10, 2, 0)]));
    let pieces = [(DATA, 5, false), (DATA + 5, 11, false)];
    let discarded = bench.request(DISCARD, 0, &pieces);
    assert!(discarded == (OK, 1) || discarded == (UNSUPP, 1));
    assert_eq!(bench.on_disk(12 * 512, 512), [13; 512]);
}

#[test]
fn malformed_ranges_touch_nothing() {
    let mut bench = Bench::new();
    let mut refused = |kind, bytes: &[u8], status| {
        bench.put(DATA, bytes);
        let len = bytes.len() as u32;
        let answer = bench.request(kind, 0, &[write(len)]);
        assert_eq!(answer, (status, 1), "{bytes:?}");
    };
    for kind in [DISCARD, WRITE_ZEROES] {
        refused(kind, &[], IOERR);
        refused(kind, &[0; 15], IOERR);
        refused(kind, &[0; 17], IOERR);
        refused(kind, &[0; 33 * 16], IOERR);
        // The first range is fine, the second is not: neither is carried out.
        refused(kind, &ranges(&[(0, 1, 0), (15, 2, 0)]), IOERR);
        refused(kind, &ranges(&[(0, 1, 0), (u64::MAX, 1, 0)]), IOERR);
        refused(kind, &ranges(&[(0, u32::MAX, 0)]), IOERR);
        refused(kind, &ranges(&[(0, 1, 2)]), UNSUPP);
    }
    refused(DISCARD, &ranges(&[(0, 1, 1)]), UNSUPP);
    assert_eq!(bench.request(WRITE_ZEROES, 0, &[read(16)]), (IOERR, 17));
    assert_eq!(bench.on_disk(0, 512), [1; 512]);
}

#[test]
fn an_image_that_shrank_is_an_error() {
    let mut bench = Bench::new();
    bench.file.as_file().set_len(512).unwrap();
    assert_eq!(bench.request(IN, 0, &[read(1024)]), (IOERR, 1025));
    assert_eq!(bench.get(DATA, 1024), vec![0; 1024]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever the request and its shape, there is an answer or a dropped chain, and a read or
    /// write that succeeds did exactly what it should.
    #[test]
    fn any_request_is_answered(
        kind in prop_oneof![0u32..16, any::<u32>()],
        sector in prop_oneof![0u64..20, any::<u64>()],
        cuts in proptest::collection::vec(0u32..700, 0..6),
        writable in any::<bool>(),
        base in prop_oneof![Just(DATA), END - 600..END + 10],
    ) {
        let mut bench = Bench::new();
        let mut at = base;
        let data: Vec<_> = cuts
            .iter()
            .map(|&len| {
                let part = (at, len, writable);
                at += u64::from(len);
                part
            })
            .collect();
        let total: u32 = cuts.iter().sum();
        let (status, used) = bench.request(kind, sector, &data);
        prop_assert!(status <= UNSUPP);
        prop_assert_eq!(used, if writable { total + 1 } else { 1 });
        if kind == IN && status == OK {
            prop_assert!(writable || total == 0);
            let got = bench.get(base, total as usize);
            prop_assert_eq!(got, bench.on_disk(sector * 512, total as usize));
        }
    }
}
