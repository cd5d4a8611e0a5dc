use std::os::unix::fs::FileExt;

use super::*;
use crate::follow::Addresses;
use crate::interpose::testing::{self, GUEST, USER};
use crate::interpose::{Access, Memory};

const SIZE: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
/// Both at the first slot with wrap counters of 1, as a ring starts.
const START: u32 = 0x8000_8000;

/// A ring in a file, which a driver and a device write.
struct Bench {
    file: std::fs::File,
    memory: Memory,
    size: u16,
    ring: Packed,
}

impl Bench {
    fn new() -> Self {
        let (file, memory) = testing::memory(Access::Read);
        Self {
            file,
            memory,
            size: SIZE,
            ring: Packed::start(SIZE, START, false),
        }
    }

    fn write(&self, at: u64, len: u32, id: u16, flags: u16) {
        let mut bytes = GUEST.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        self.file.write_all_at(&bytes, at).unwrap();
    }

    /// The driver makes a descriptor available.
    fn give(&self, slot: u64, (len, id, flags): (u32, u16, u16), wrap: bool) {
        let turn = if wrap { AVAIL } else { USED };
        self.write(16 * slot, len, id, flags | turn);
    }

    /// The device uses a chain.
    fn put_back(&self, slot: u64, id: u16, written: u32, wrap: bool) {
        let turn = if wrap { AVAIL | USED } else { 0 };
        self.write(16 * slot, written, id, WRITE | turn);
    }

    /// Ids of what was made available as they are, of what was used with a minus; with how much
    /// was written, and the number of buffers of what was given.
    fn look(&mut self) -> Vec<(i32, u32)> {
        let look = Look {
            memory: &self.memory,
            time: 7,
            describe: &|buffers| format!("{} buffers", buffers.len()),
        };
        let addresses = Addresses {
            descriptors: USER,
            driver: USER + 0x3000,
            device: USER + 0x3004,
        };
        let ring = PackedRing::at(&self.memory, &addresses, self.size);
        let seen = ring.map_or_else(Vec::new, |ring| self.ring.look(&ring, &look));
        let seen = seen.into_iter();
        seen.map(|seen| match seen {
            Seen::Available(chain) => (chain.id.into(), chain.buffers.len() as u32),
            Seen::Used(id, _, written) => (-i32::from(id), written),
        })
        .collect()
    }
}

#[test]
fn chains_are_followed_around_the_end_of_the_ring() {
    let mut bench = Bench::new();
    assert_eq!(bench.look(), []);
    for round in 0..6u64 {
        // A chain of three descriptors, round and round in a ring of four.
        let place = |n: u64| ((3 * round + n) % 4, ((3 * round + n) / 4).is_multiple_of(2));
        for n in 0..3 {
            let (slot, wrap) = place(n);
            bench.give(slot, (512, 9, if n < 2 { NEXT } else { 0 }), wrap);
        }
        assert_eq!(bench.look(), [(9, 3)], "round {round}");
        assert_eq!(bench.look(), [], "round {round}");
        let (slot, wrap) = place(0);
        bench.put_back(slot, 9, 17, wrap);
        assert_eq!(bench.look(), [(-9, 17)], "round {round}");
    }
}

#[test]
fn chains_are_used_in_any_order() {
    let mut bench = Bench::new();
    bench.give(0, (16, 1, NEXT), true);
    bench.give(1, (16, 1, 0), true);
    bench.give(2, (16, 2, 0), true);
    assert_eq!(bench.look(), [(1, 2), (2, 1)]);
    bench.put_back(0, 2, 5, true);
    assert_eq!(bench.look(), [(-2, 5)]);
    bench.put_back(1, 1, 6, true);
    assert_eq!(bench.look(), [(-1, 6)]);
}

#[test]
fn in_order_the_last_of_several_is_told() {
    let mut bench = Bench::new();
    bench.ring = Packed::start(SIZE, START, true);
    for slot in 0..3 {
        bench.give(slot, (16, 10 + slot as u16, 0), true);
    }
    assert_eq!(bench.look().len(), 3);
    bench.put_back(0, 12, 5, true);
    assert_eq!(bench.look(), [(-10, 0), (-11, 0), (-12, 5)]);
    bench.give(3, (16, 1, 0), true);
    assert_eq!(bench.look(), [(1, 1)]);
}

#[test]
fn the_table_of_an_indirect_descriptor_is_read() {
    let mut bench = Bench::new();
    for n in 0..3 {
        bench.write(16 * n, 100, 0, WRITE);
    }
    // The table is at the address that each descriptor has here: that of the ring itself.
    bench.give(3, (3 * 16, 7, INDIRECT), true);
    bench.ring = Packed::start(SIZE, 0x8003_8003, false);
    assert_eq!(bench.look(), [(7, 3)]);
}

#[test]
fn a_chain_that_was_used_unseen_is_passed() {
    let mut bench = Bench::new();
    // Of three descriptors, the device has written the first.
    bench.give(1, (16, 1, NEXT), true);
    bench.give(2, (16, 1, 0), true);
    bench.put_back(0, 1, 5, true);
    assert_eq!(bench.look(), [(-1, 5)]);
    bench.give(3, (16, 2, 0), true);
    assert_eq!(bench.look(), [(2, 1)]);
    bench.put_back(3, 2, 6, true);
    assert_eq!(bench.look(), [(-2, 6)]);
}

#[test]
fn nonsense_is_looked_at_for_a_bounded_time() {
    let mut bench = Bench::new();
    // Each descriptor says that there is another.
    for slot in 0..4 {
        bench.give(slot, (u32::MAX, 1, NEXT | INDIRECT), true);
    }
    assert!(bench.look().len() <= 4);
    for slot in 0..4 {
        bench.put_back(slot, u16::MAX, u32::MAX, true);
    }
    assert!(bench.look().len() <= 8);
    for size in [0, u16::MAX] {
        bench.size = size;
        bench.ring = Packed::start(size, u32::MAX, false);
        assert_eq!(bench.look(), []);
    }
}
