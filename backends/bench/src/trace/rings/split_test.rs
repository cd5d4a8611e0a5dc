use std::os::unix::fs::FileExt;

use super::super::look::Chain;
use super::*;
use crate::follow::Addresses;
use crate::interpose::testing::{self, GUEST, USER};
use crate::interpose::{Access, Memory};

const SIZE: u16 = 4;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A ring in a file, which a driver and a device write.
struct Bench {
    file: std::fs::File,
    memory: Memory,
    addresses: Addresses,
    size: u16,
    ring: Split,
}

impl Bench {
    fn new() -> Self {
        let (file, memory) = testing::memory(Access::Read);
        let addresses = Addresses {
            descriptors: USER,
            driver: USER + 0x1000,
            device: USER + 0x2000,
        };
        Self {
            file,
            memory,
            addresses,
            size: SIZE,
            ring: Split::start(SIZE, 0, false),
        }
    }

    fn start(&mut self, base: u16) {
        self.ring = Split::start(SIZE, base, false);
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, at).unwrap();
    }

    fn descriptor(
        &self,
        table: u64,
        index: u64,
        (address, len): (u64, u32),
        flags: u16,
        next: u16,
    ) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.write(table + 16 * index, &bytes);
    }

    /// The driver puts `head` into the ring as number `n`.
    fn make_available(&self, n: u16, head: u16) {
        self.write(0x1004 + 2 * u64::from(n % SIZE), &head.to_le_bytes());
        self.write(0x1002, &(n.wrapping_add(1)).to_le_bytes());
    }

    fn use_chain(&self, n: u16, head: u32, written: u32) {
        let element = [head.to_le_bytes(), written.to_le_bytes()].concat();
        self.write(0x2004 + 8 * u64::from(n % SIZE), &element);
        self.write(0x2002, &(n.wrapping_add(1)).to_le_bytes());
    }

    fn look(&mut self) -> Vec<Seen> {
        let look = Look {
            memory: &self.memory,
            time: 7,
            describe: &|buffers| format!("{} buffers", buffers.len()),
        };
        SplitRing::at(&self.memory, &self.addresses, self.size)
            .map_or_else(Vec::new, |ring| self.ring.look(&ring, &look))
    }

    fn available(&mut self) -> Vec<Chain> {
        let available = |seen| match seen {
            Seen::Available(chain) => Some(chain),
            Seen::Used(..) => None,
        };
        self.look().into_iter().filter_map(available).collect()
    }
}

fn lengths(chain: &Chain) -> Vec<(u32, bool)> {
    let buffers = chain.buffers.iter();
    buffers
        .map(|buffer| (buffer.len, buffer.is_writable))
        .collect()
}

#[test]
fn a_chain_is_seen_when_it_is_made_available_and_when_it_is_used() {
    let mut bench = Bench::new();
    assert!(bench.available().is_empty());
    bench.descriptor(0, 2, (GUEST, 16), NEXT, 0);
    bench.descriptor(0, 0, (GUEST + 16, 512), NEXT | WRITE, 3);
    bench.descriptor(0, 3, (GUEST + 600, 1), WRITE, 0);
    bench.make_available(0, 2);
    let chains = bench.available();
    assert_eq!(chains.len(), 1);
    assert_eq!(lengths(&chains[0]), [(16, false), (512, true), (1, true)]);
    assert!(bench.available().is_empty());
    bench.use_chain(0, 2, 513);
    let seen = bench.look();
    let [Seen::Used(2, Some(chain), 513)] = &seen[..] else {
        panic!("{seen:?}");
    };
    assert_eq!((chain.time, &*chain.what), (7, "3 buffers"));
    assert!(bench.look().is_empty());
}

#[test]
fn an_indirect_table_is_followed() {
    let mut bench = Bench::new();
    bench.descriptor(0, 1, (GUEST + 0x3000, 32), INDIRECT, 0);
    bench.descriptor(0x3000, 0, (GUEST, 16), NEXT, 1);
    bench.descriptor(0x3000, 1, (GUEST, 99), WRITE, 0);
    bench.make_available(0, 1);
    assert_eq!(lengths(&bench.available()[0]), [(16, false), (99, true)]);
}

#[test]
fn a_loop_ends_and_what_is_outside_memory_is_left_out() {
    let mut bench = Bench::new();
    bench.descriptor(0, 1, (GUEST, 16), NEXT, 1);
    bench.make_available(0, 1);
    assert_eq!(bench.available()[0].buffers.len(), usize::from(SIZE));
    // A head beyond the memory, and rings at no address at all.
    bench.make_available(1, u16::MAX);
    assert!(bench.available()[0].buffers.is_empty());
    bench.addresses.driver = u64::MAX;
    bench.addresses.device = 1;
    assert!(bench.look().is_empty());
}

#[test]
fn a_driver_far_ahead_costs_one_round_of_its_ring() {
    let mut bench = Bench::new();
    bench.make_available(30_000, 0);
    assert_eq!(bench.available().len(), usize::from(SIZE));
    assert!(bench.available().is_empty());
    bench.size = 0;
    bench.make_available(40_000, 0);
    assert!(bench.available().is_empty());
}

#[test]
fn a_ring_starts_at_its_base() {
    let mut bench = Bench::new();
    bench.write(0x2002, &u16::MAX.to_le_bytes());
    bench.start(u16::MAX);
    bench.descriptor(0, 1, (GUEST, 5), 0, 0);
    bench.make_available(u16::MAX, 1);
    assert_eq!(lengths(&bench.available()[0]), [(5, false)]);
    bench.use_chain(u16::MAX, 1, 0);
    assert_eq!(bench.look().len(), 1);
}

#[test]
fn requests_of_an_earlier_backend_are_used_behind_the_base() {
    let mut bench = Bench::new();
    bench.start(3);
    bench.make_available(2, 1);
    bench.use_chain(0, 1, 0);
    assert!(bench.look().is_empty(), "before the first look");
    bench.use_chain(1, 2, 0);
    assert!(matches!(bench.look()[..], [Seen::Used(2, None, 0)]));
}

/// Without signals between them, as of a driver that polls.
#[test]
fn a_head_that_comes_again_between_two_looks_was_used_in_between() {
    let mut bench = Bench::new();
    bench.descriptor(0, 1, (GUEST, 5), 0, 0);
    for n in 0..3 {
        bench.make_available(n, 1);
        bench.use_chain(n, 1, u32::from(n));
    }
    bench.make_available(3, 1);
    let names: Vec<_> = bench
        .look()
        .into_iter()
        .map(|seen| match seen {
            Seen::Available(chain) => format!("available {}", chain.id),
            Seen::Used(head, chain, written) => {
                format!("used {head} {} {written}", chain.is_some())
            }
        })
        .collect();
    let expected = [
        "available 1",
        "used 1 true 0",
        "available 1",
        "used 1 true 1",
    ];
    assert_eq!(names[..4], expected);
    assert_eq!(names[4..], ["available 1", "used 1 true 2", "available 1"]);
}

#[test]
fn what_does_not_fit_together_is_gone_past() {
    let mut bench = Bench::new();
    // Used, though it never was available; then available twice.
    bench.use_chain(0, 2, 9);
    bench.make_available(0, 1);
    bench.make_available(1, 1);
    let seen = bench.look();
    let used = |seen: &&Seen| matches!(seen, Seen::Used(2, None, 9));
    assert_eq!(seen.iter().filter(used).count(), 1);
    assert_eq!(seen.len(), 3);
    assert!(bench.look().is_empty());
}

#[test]
fn in_order_one_entry_tells_of_a_batch() {
    let mut bench = Bench::new();
    bench.ring = Split::start(SIZE, 0, true);
    for n in 0..3 {
        bench.descriptor(0, n.into(), (GUEST, 100 + u32::from(n)), WRITE, 0);
        bench.make_available(n, n);
    }
    assert_eq!(bench.available().len(), 3);
    // In the batch's first entry stands its last chain.
    bench.use_chain(0, 2, 7);
    bench.write(0x2002, &3u16.to_le_bytes());
    let used = |seen| match seen {
        Seen::Used(id, Some(_), written) => Some((id, written)),
        _ => None,
    };
    let written: Vec<_> = bench.look().into_iter().map(used).collect();
    assert_eq!(written, [Some((0, 100)), Some((1, 101)), Some((2, 7))]);
    bench.make_available(3, 1);
    bench.use_chain(3, 1, 9);
    assert_eq!(bench.look().len(), 2);
}
