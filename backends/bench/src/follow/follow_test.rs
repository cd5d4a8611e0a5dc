use super::*;
use crate::interpose::testing::{self, GUEST, USER};
use crate::interpose::{Access, Memory};

const SIZE: u16 = 4;
const ADDRESSES: Addresses = Addresses {
    descriptors: USER,
    driver: USER + 0x1000,
    device: USER + 0x2000,
};
const TABLE: u64 = 0x3000;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;
const WRAP: u16 = 1 << 15;

fn memory() -> Memory {
    testing::memory(Access::ReadWrite).1
}

/// A descriptor at this offset, with its last two fields as the format of the ring has them.
fn put(memory: &Memory, at: u64, len: u32, last: [u16; 2]) {
    let mut bytes = GUEST.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(last.iter().flat_map(|field| field.to_le_bytes()));
    let place = memory.user_slice(USER + at, bytes.len()).unwrap();
    place.copy_from(&bytes);
}

fn split(memory: &Memory) -> SplitRing<'_> {
    SplitRing::at(memory, &ADDRESSES, SIZE).unwrap()
}

fn packed(memory: &Memory) -> PackedRing<'_> {
    PackedRing::at(memory, &ADDRESSES, SIZE).unwrap()
}

fn lengths(chain: &Chain) -> Vec<(u32, bool)> {
    let buffers = chain.buffers.iter();
    buffers
        .map(|buffer| (buffer.len, buffer.is_writable))
        .collect()
}

fn trouble(chain: &Chain) -> &str {
    chain.trouble.as_deref().unwrap_or("none")
}

#[test]
fn a_split_chain_is_linked_and_ends_with_a_table() {
    let memory = memory();
    put(&memory, 16 * 3, 1, [NEXT, 1]);
    put(&memory, 16, 2, [NEXT | WRITE, 2]);
    put(&memory, 16 * 2, 3 * 16, [INDIRECT, 0]);
    put(&memory, 0, 10, [NEXT | WRITE, 2]);
    put(&memory, 32, 3 * 16, [INDIRECT, 0]);
    let chain = split(&memory).chain(&memory, 3);
    // The table is the ring's own, as all buffers are at the begin of memory.
    assert_eq!(lengths(&chain), [(1, false), (2, true), (10, true)]);
    assert_eq!(chain.table_after, Some(2));
    assert_eq!(trouble(&chain), "its table has a table");
}

#[test]
fn what_is_no_split_chain_is_said() {
    let memory = memory();
    put(&memory, 0, 1, [NEXT, 0]);
    let chain = split(&memory).chain(&memory, 0);
    assert_eq!(chain.buffers.len(), usize::from(SIZE));
    assert_eq!(trouble(&chain), "its descriptors are a loop");
    put(&memory, 0, 1, [NEXT, SIZE]);
    let chain = split(&memory).chain(&memory, 0);
    assert_eq!(trouble(&chain), "descriptor 4 is in no table");
    assert_eq!(lengths(&chain), [(1, false)]);
    put(&memory, 0, 0x5000, [INDIRECT, 0]);
    let chain = split(&memory).chain(&memory, 0);
    assert_eq!(trouble(&chain), "its table at 0x100000 is not memory");
}

#[test]
fn a_packed_chain_goes_round_and_has_its_id_in_the_end() {
    let memory = memory();
    put(&memory, 16 * 3, 1, [7, NEXT | AVAIL]);
    put(&memory, 0, 2, [8, WRITE | USED]);
    let ring = packed(&memory);
    let last = Position::from_bits(3 | WRAP, SIZE);
    assert!(ring.is_available(last));
    let chain = ring.chain(&memory, last, SIZE);
    assert_eq!((chain.id, chain.descriptors), (8, 2));
    assert_eq!(lengths(&chain), [(1, false), (2, true)]);
    assert_eq!(
        trouble(&ring.chain(&memory, last, 1)),
        "it is longer than the ring"
    );
}

#[test]
fn a_packed_table_has_all_its_entries_in_sequence() {
    let memory = memory();
    put(&memory, 0, 3 * 16, [5, INDIRECT | AVAIL]);
    for n in 1..3 {
        put(&memory, 16 * n, 9, [0, WRITE]);
    }
    let ring = packed(&memory);
    let chain = ring.chain(&memory, Position::from_bits(WRAP, SIZE), SIZE);
    assert_eq!(lengths(&chain), [(48, false), (9, true), (9, true)]);
    assert_eq!(
        (chain.id, chain.descriptors, chain.table_after),
        (5, 1, Some(0))
    );
}

/// Virtio 1.4, section 2.8.1.
#[test]
fn flags_mean_another_thing_in_each_round() {
    let memory = memory();
    let ring = packed(&memory);
    let rounds = [WRAP, 0].map(|bits| Position::from_bits(bits, SIZE));
    let seen = |flags| {
        put(&memory, 0, 0, [0, flags]);
        rounds.map(|round| (ring.is_available(round), ring.is_used(round)))
    };
    assert_eq!(seen(AVAIL), [(true, false), (false, false)]);
    assert_eq!(seen(USED), [(false, false), (true, false)]);
    assert_eq!(seen(AVAIL | USED), [(false, true), (false, false)]);
    assert_eq!(seen(0), [(false, false), (false, true)]);
}

#[test]
fn only_what_a_device_may_write_has_a_used_length() {
    let memory = memory();
    let ring = packed(&memory);
    let begin = Position::from_bits(WRAP, SIZE);
    put(&memory, 0, 17, [3, WRITE]);
    assert_eq!(ring.used(begin), Used { id: 3, len: 17 });
    put(&memory, 0, 17, [3, 0]);
    assert_eq!(ring.used(begin), Used { id: 3, len: 0 });
}

#[test]
fn positions_go_round() {
    let mut position = Position::from_bits(3 | WRAP, SIZE);
    let begin = position;
    position.advance(2, SIZE);
    assert_eq!((position.index(), position.wrap()), (1, false));
    assert_eq!(begin.distance(position, SIZE), 2);
    position.advance(3, SIZE);
    assert_eq!((position.index(), position.wrap()), (0, true));
    // More than a round is nonsense, and is one.
    position.advance(u16::MAX, SIZE);
    assert_eq!((position.index(), position.wrap()), (0, false));
    let [available, used] = Position::of_base(0x8002_0001, SIZE);
    assert_eq!((available.index(), available.wrap()), (1, false));
    assert_eq!((used.index(), used.wrap()), (2, true));
    assert_eq!(used.distance(available, SIZE), 3);
}

/// Section 2.7.7: from used_event on, over the end of the index too.
#[test]
fn a_split_ring_says_of_which_use_its_driver_wants_to_hear() {
    let memory = memory();
    let ring = split(&memory);
    // The same word, as the driver writes it for a device.
    ring.ask_for_calls(Some(u16::MAX));
    let wants = |from, to| ring.wants_call(from, to, true);
    assert!(wants(u16::MAX, 0) && wants(u16::MAX - 1, 1));
    assert!(!wants(0, 1) && !wants(u16::MAX - 1, u16::MAX) && !wants(0, 0));
    assert!(ring.wants_call(0, 1, false));
    let flags = memory.user_slice(ADDRESSES.driver, 2).unwrap();
    flags.copy_from(&1u16.to_le_bytes());
    assert!(!ring.wants_call(0, 1, false));
}

/// Section 2.8.14.
#[test]
fn a_packed_ring_says_of_which_use_its_driver_wants_to_hear() {
    let memory = memory();
    let ring = packed(&memory);
    let from = Position::from_bits(3 | WRAP, SIZE);
    let set = |words: [u16; 2]| {
        let event = memory.user_slice(ADDRESSES.driver, 4).unwrap();
        event.copy_from(&words.map(u16::to_le_bytes).concat());
    };
    assert!(ring.wants_call(from, 1));
    set([0, 1]);
    assert!(!ring.wants_call(from, 1));
    // The first descriptor in the next round.
    set([0, 2]);
    assert!(ring.wants_call(from, 2) && !ring.wants_call(from, 1));
    set([WRAP, 2]);
    assert!(!ring.wants_call(from, 2));
}

#[test]
fn chains_leave_the_flight_alone_or_with_those_before_them() {
    let mut in_flight = InFlight::default();
    for id in 0..5 {
        in_flight.push(id, 2, ());
    }
    assert_eq!(in_flight.take(1).map(|taken| taken.descriptors), Some(2));
    assert!(in_flight.take(1).is_none() && in_flight.take_through(1).is_empty());
    let taken = in_flight.take_through(3);
    assert!(taken.iter().map(|taken| taken.id).eq([0, 2, 3]));
    assert_eq!(in_flight.descriptors(), 2);
    assert!(in_flight.has(4) && !in_flight.has(0));
}

#[test]
fn a_ring_of_no_size_or_outside_memory_is_none() {
    let memory = memory();
    for size in [0, MOST_DESCRIPTORS + 1, MOST_DESCRIPTORS] {
        assert!(SplitRing::at(&memory, &ADDRESSES, size).is_none());
        assert!(PackedRing::at(&memory, &ADDRESSES, size).is_none());
    }
}

#[test]
fn contents_end_where_memory_does() {
    let memory = memory();
    let buffer = |address, len| Buffer {
        address,
        len,
        is_writable: true,
    };
    memory
        .user_slice(USER + TABLE, 4)
        .unwrap()
        .copy_from(&[1u8, 2, 3, 4]);
    let buffers = [
        buffer(GUEST + TABLE, 3),
        buffer(GUEST + TABLE + 3, 1),
        buffer(0, 0),
    ];
    assert_eq!(read(&memory, &buffers, true, 9), (vec![1, 2, 3, 4], true));
    assert_eq!(read(&memory, &buffers, true, 2), (vec![1, 2], false));
    assert_eq!(read(&memory, &buffers, false, 9), (vec![], true));
    assert_eq!(last(&memory, &buffers), Some(4));
    let outside = [buffers[0], buffer(GUEST + 0x4000, 1)];
    assert_eq!(read(&memory, &outside, true, 9), (vec![1, 2, 3], false));
    assert_eq!(last(&memory, &outside), None);
}

#[test]
fn a_copy_has_nothing_that_a_device_has_yet_to_take() {
    let memory = memory();
    let other = Addresses {
        descriptors: USER + TABLE,
        driver: USER + TABLE + 0x100,
        device: USER + TABLE + 0x200,
    };
    let ring = split(&memory);
    ring.put_head(1, 3);
    ring.make_available(2);
    ring.mark_used(1);
    let copy = SplitRing::at(&memory, &other, SIZE).unwrap();
    copy.copy_until(&ring, 1);
    assert_eq!((copy.available(), copy.used(), copy.head(1)), (1, 1, 3));
    for n in 0..SIZE {
        put(&memory, 16 * u64::from(n), 1, [n, AVAIL]);
    }
    let copy = PackedRing::at(&memory, &other, SIZE).unwrap();
    copy.copy_until(&packed(&memory), Position::from_bits(2 | WRAP, SIZE), 2);
    let is_available = |n: u16| copy.is_available(Position::from_bits(n | WRAP, SIZE));
    assert_eq!([0, 1, 2, 3].map(is_available), [true, true, false, false]);
}
